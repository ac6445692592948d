#!/usr/bin/env python3
"""`make bench`: the engine beside ONNX Runtime fp32 on the same texts, the server under load, memory, and
the time from start to the first vector. Everything in one run, printed as ratios, with versions."""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
import onnxruntime

import texts
from onnx_peer import Peer

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
KEY = "a-key-for-the-benchmark"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True, type=pathlib.Path)
    arguments.add_argument("--texts", type=int, default=1024)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        sets = {"mixed": texts.mixed(options.texts), "queries": texts.queries(options.texts)}
        for name, lines in sets.items():
            (scratch / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print_machine()
        engine(options.model.resolve(), sets, scratch)
        server(options.model.resolve(), scratch)


def print_machine() -> None:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = subprocess.run([RELEASE / "embeddery", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version} beside onnxruntime {onnxruntime.__version__}; {cpu}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}\n")


def engine(model: pathlib.Path, sets: dict, scratch: pathlib.Path) -> None:
    print("engine, tokens/s, tokenization included (ours in f32, ONNX Runtime in fp32 with padded batches of 32)")
    print(f"{'texts':<22}{'threads':>8}{'ours':>10}{'ORT':>10}{'ratio':>8}{'cosine min':>13}")
    for threads in (1, 2):
        peer = Peer(model, threads)
        for name, lines in sets.items():
            for by_length in (True, False):
                ours, theirs, cosine = side_by_side(model, peer, name, lines, threads, by_length, scratch)
                label = f"{name}, {'sorted' if by_length else 'unsorted'}"
                print(f"{label:<22}{threads:>8}{ours:>10,.0f}{theirs:>10,.0f}{ours / theirs:>8.2f}{cosine:>13.7f}", flush=True)
    print()


def side_by_side(model, peer, name, lines, threads, by_length, scratch):
    """Ours, theirs, ours, theirs …: the median of three each, so that a drift of the machine hits both."""
    ours, theirs, cosine = [], [], 1.0
    order = sorted(lines, key=len) if by_length else lines
    source = scratch / f"{name}-{'sorted' if by_length else 'unsorted'}.txt"
    source.write_text("\n".join(order) + "\n")
    for _ in range(3):
        vectors = scratch / "vectors.f32"
        result = subprocess.run(
            [RELEASE / "examples/throughput", model, source, "--threads", str(threads), "--json", "--out", vectors],
            capture_output=True, text=True, check=True)
        ours.append(json.loads(result.stdout)["tokens_per_s_with_tokenization"])
        began = time.perf_counter()
        sequences = peer.tokenize(order)
        answer = peer.encode(sequences, by_length=by_length)
        theirs.append(sum(map(len, sequences)) / (time.perf_counter() - began))
        mine = np.fromfile(vectors, dtype="<f4").reshape(answer.shape)
        cosine = min(cosine, float((mine * answer).sum(1).min()))
    return statistics.median(ours), statistics.median(theirs), cosine


def server(model: pathlib.Path, scratch: pathlib.Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SINGLE_USER_API_KEY": KEY, "HF_HUB_OFFLINE": "1", "LOG_LEVEL": "WARN",
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
        print(f"start to first vector {first * 1e3:.0f} ms; resident after it {resident / 1e6:.0f} MB, "
              f"{resident / weights:.2f} x the weights ({weights / 1e6:.0f} MB); binary {binary / 1e6:.1f} MB\n")
        print("server over HTTP (compiled client on the same machine, its CPU share in the last column)")
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
