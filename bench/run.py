#!/usr/bin/env python3
"""`make bench`: the engine beside ONNX Runtime fp32 on the same texts, the server under load, memory, and
the time from start to the first vector. Everything in one run, printed as ratios, with versions."""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
import onnxruntime

import engine
import texts

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
KEY = "a-key-for-the-benchmark"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True, type=pathlib.Path)
    arguments.add_argument("--texts", type=int, default=1024)
    options = arguments.parse_args()
    model = options.model.resolve()
    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        sets = {"mixed": texts.mixed(options.texts), "queries": texts.queries(options.texts)}
        for name, lines in sets.items():
            (scratch / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print_machine()
        ours = engine.Engine(RELEASE / "examples/throughput", model, scratch)
        engine.compare(ours, sets, torch="torch" in os.environ.get("PEERS", ""))
        engine.peak(RELEASE / "embeddery", model, {"PATH": os.environ["PATH"]})
        engine.ranking(ours, texts.held_out(1000))
        engine.long_text(ours, " ".join(texts.mixed(20))[:4000])
        engine.memory(ours, sets["mixed"])
        for precision in engine.PRECISIONS:
            server(model, scratch, precision)


def print_machine() -> None:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = subprocess.run([RELEASE / "embeddery", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version} beside onnxruntime {onnxruntime.__version__}; {cpu}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}\n")


def server(model: pathlib.Path, scratch: pathlib.Path, precision: str) -> None:
    environment = {"PATH": os.environ["PATH"], "SINGLE_USER_API_KEY": KEY, "HF_HUB_OFFLINE": "1", "LOG_LEVEL": "WARN",
                   # Every request is computed.
                   "EMBEDDINGS_PRECISION": precision, "EMBEDDINGS_CACHE_MAX_SIZE": "0",
                   "EMBEDDINGS_MODEL_STORAGE_DIR": str(model.parent.parent), "USER_DB_BASE_DIR": str(scratch / "db")}
    began = time.perf_counter()
    process = subprocess.Popen([RELEASE / "embeddery", "serve", "--listen", "127.0.0.1:0"], cwd=scratch,
                               env=environment, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        request = urllib.request.Request(f"{url}/v1/embeddings", json.dumps({"input": "hello"}).encode(),
                                         {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
        urllib.request.urlopen(request).read()
        first = time.perf_counter() - began
        weights = (model / "model.safetensors").stat().st_size
        resident = resident_bytes(process.pid)
        binary = (RELEASE / "embeddery").stat().st_size
        print(f"server in {precision}: start to first vector {first * 1e3:.0f} ms; resident after it {resident / 1e6:.0f} MB, "
              f"{resident / weights:.2f} x the weights ({weights / 1e6:.0f} MB); binary {binary / 1e6:.1f} MB\n")
        print("over HTTP (compiled client on the same machine, its CPU share in the last column)")
        print(f"{'load':<34}{'requests/s':>12}{'texts/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'client':>8}")
        for label, source, connections, requests, extra in [
            ("one query, 1 connection", "queries", 1, 500, []),
            ("one query, 16 connections", "queries", 16, 2000, []),
            ("one query, 64 connections", "queries", 64, 2000, []),
            ("one query, 16 connections, base64", "queries", 16, 2000, ["--base64"]),
            ("one mixed text, 16 connections", "mixed", 16, 512, []),
            ("32 mixed texts, 4 connections", "mixed", 4, 32, ["--batch", "32"]),
        ]:
            command = [RELEASE / "examples/load", url, KEY, scratch / f"{source}.txt",
                       "--connections", str(connections), "--requests", str(requests), *extra]
            row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"{label:<34}{row['requests_per_s']:>12,.0f}{row['texts_per_s']:>10,.0f}{row['p50_ms']:>9.1f}"
                  f"{row['p99_ms']:>9.1f}{row['client_cpu_share']:>8.0%}", flush=True)
        print(f"\nresident after the load {resident_bytes(process.pid) / 1e6:.0f} MB")
    finally:
        process.terminate()
        if process.wait():
            sys.exit("the server did not stop cleanly")


def resident_bytes(pid: int) -> int:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
