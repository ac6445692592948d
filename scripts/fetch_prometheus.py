#!/usr/bin/env python3
"""Unpacks prometheus and promtool from Debian's package into a directory: fetch_prometheus.py DIRECTORY. Nothing is
installed, no service is started, and no root is needed. What is already on the PATH is used as it is."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

TOOLS = ("prometheus", "promtool")


def main() -> None:
    directory = pathlib.Path(sys.argv[1]).resolve()
    if all((directory / tool).is_file() for tool in TOOLS):
        return
    directory.mkdir(parents=True, exist_ok=True)
    if all(map(shutil.which, TOOLS)):
        for tool in TOOLS:
            (directory / tool).symlink_to(shutil.which(tool))
        return
    if not shutil.which("apt-get"):
        sys.exit("test-ops needs prometheus and promtool; install them with this system's package manager")
    with tempfile.TemporaryDirectory() as scratch:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"]
        if subprocess.run(download, cwd=scratch, check=False).returncode != 0:
            sys.exit("Debian's package prometheus cannot be fetched; `apt-get update` may be needed, or a network")
        (package,) = pathlib.Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, f"{scratch}/root"], check=True)
        for tool in TOOLS:
            shutil.copy2(f"{scratch}/root/usr/bin/{tool}", directory / tool)


if __name__ == "__main__":
    main()
