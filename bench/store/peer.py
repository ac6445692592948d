#!/usr/bin/env python3
"""sqlite-vec beside us, on the vectors that `bench` left behind: peer.py DIRECTORY ROWS..."""

import pathlib
import sys
import time

import apsw  # Python's own sqlite3 is often built without extensions
import numpy as np
import sqlite_vec

DIM, TOP = 384, 10


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    queries = np.fromfile(directory / "queries.f32", "<f4").reshape(-1, DIM)[:50]
    for rows in map(int, sys.argv[2:]):
        vectors = np.fromfile(directory / f"vectors-{rows}.f32", "<f4").reshape(-1, DIM)
        path = directory / f"sqlite-vec-{rows}.db"
        path.unlink(missing_ok=True)
        db = apsw.Connection(str(path))
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"CREATE VIRTUAL TABLE v USING vec0(rare boolean, e float[{DIM}] distance_metric=cosine)")
        began = time.perf_counter()
        for start in range(0, rows, 1000):
            batch = enumerate(vectors[start : start + 1000], start)
            with db:
                db.executemany("INSERT INTO v(rowid, rare, e) VALUES (?, ?, ?)", ((i, i % 100 == 0, e.tobytes()) for i, e in batch))
        rate = rows / (time.perf_counter() - began)
        print(f"sqlite-vec {sqlite_vec.__version__}, {rows} x {DIM}: insert {rate:.0f} a second")
        for name, where in (("top 10", ""), ("1 % filter", " AND rare = 1")):
            times = []
            for query in queries:
                began = time.perf_counter()
                db.execute(f"SELECT rowid FROM v WHERE e MATCH ? AND k = {TOP}{where}", (query.tobytes(),)).fetchall()
                times.append((time.perf_counter() - began) * 1e3)
            p50, p99 = np.percentile(times, [50, 99])
            print(f"    {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        db.close()


if __name__ == "__main__":
    main()
