#!/usr/bin/env python3
"""`make bench`, the gateway: latency added to a fast stand-in vendor and requests a second, beside LiteLLM's
proxy (two workers) and Portkey's gateway, in one run on the same cores. The vendor, every gateway and the load
client share the machine, so absolute numbers are low; the ratios are what counts. Versions are printed."""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
CACHE = ROOT / ".cache"
KEY = "sk-a-key-for-the-benchmark"
MODEL = "text-embedding-3-small"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--requests", type=int, default=4000)
    arguments.add_argument("--peers", type=int, default=400, help="requests to a peer: they take longer")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        (scratch / "texts.txt").write_text("a question about the weather in Lisbon\n")
        with upstream() as fake:
            with ours(fake.url, scratch, cache="0") as gateway:
                rows(fake, gateway, scratch, options)
            cached(fake, scratch, options)
            counted(fake, scratch)


class Process:
    """A server that is ended by its own id."""

    def __init__(self, command, url=None, **options):
        self.child = subprocess.Popen(command, start_new_session=True, **options)
        self.url = url
        self.counts = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # LiteLLM's workers are children of its own session.
        os.killpg(self.child.pid, signal.SIGINT)
        try:
            self.counts = self.child.communicate(timeout=10)[0] or ""
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)

    def resident_mb(self) -> float:
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def listening(process: Process) -> Process:
    process.url = process.child.stdout.readline().split()[-1]
    return process


def upstream() -> Process:
    command = [RELEASE / "examples/fake_upstream", "--length", "1536"]
    return listening(Process(command, stdout=subprocess.PIPE, text=True))


def ours(fake: str, scratch: pathlib.Path, cache: str) -> Process:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(scratch), "SINGLE_USER_API_KEY": KEY, "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{fake}/v1", "EMBEDDINGS_CACHE_MAX_SIZE": cache, "LOG_LEVEL": "warning",
    }
    (scratch / "gateway.yaml").write_text(f"default_model_id: {MODEL}\n")
    command = [RELEASE / "embeddery", "serve", "--listen", "127.0.0.1:0", "--config", scratch / "gateway.yaml"]
    return listening(Process(command, env=environment, cwd=scratch, stdout=subprocess.PIPE, text=True))


def litellm(fake: str, scratch: pathlib.Path) -> Process:
    config = {"model_list": [{"model_name": MODEL, "litellm_params": {
        "model": f"openai/{MODEL}", "api_base": f"{fake}/v1", "api_key": KEY}}]}
    (scratch / "litellm.yaml").write_text(json.dumps(config))
    port = free_port()
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR",
                   "LITELLM_MASTER_KEY": KEY}
    command = [CACHE / "gateway-bench-venv/bin/litellm", "--config", scratch / "litellm.yaml", "--host", "127.0.0.1",
               "--port", str(port), "--num_workers", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return waited(Process(command, f"http://127.0.0.1:{port}", env=environment, **quiet))


def portkey(_: str, __: pathlib.Path) -> Process:
    port = free_port()
    command = ["node", CACHE / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js", "--headless",
               f"--port={port}"]
    environment = {**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return waited(Process(command, f"http://127.0.0.1:{port}", env=environment, **quiet))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def waited(process: Process) -> Process:
    host, port = process.url.removeprefix("http://").split(":")
    for _ in range(600):
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return process
        except OSError:
            assert process.child.poll() is None, "a peer did not start"
            time.sleep(0.2)
    raise AssertionError("a peer did not come up")


def load(url: str, scratch: pathlib.Path, requests: int, connections: int, *more: str) -> dict:
    command = [RELEASE / "examples/load", url, KEY, scratch / "texts.txt", "--requests", str(requests),
               "--connections", str(connections), "--model", MODEL, *more]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def rows(fake: Process, gateway: Process, scratch: pathlib.Path, options) -> None:
    version = subprocess.run([RELEASE / "embeddery", "--version"], capture_output=True, text=True).stdout.strip()
    litellm_version = (ROOT / "bench/gateway-requirements.txt").read_text().strip()
    package = json.loads((CACHE / "portkey/node_modules/@portkey-ai/gateway/package.json").read_text())
    print(f"{version} beside {litellm_version} and @portkey-ai/gateway {package['version']}; {os.cpu_count()} cores, one text, 1536 floats\n")
    portkey_headers = f"x-portkey-provider: openai|x-portkey-custom-host: {fake.url}/v1"
    print(f"{'':<22}{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}{'added p99':>11}{'req/s, 16 conn.':>17}{'ratio':>8}{'MB':>7}")
    load(gateway.url, scratch, 500, 4, "--distinct")
    direct = (load(fake.url, scratch, options.requests, 1), load(fake.url, scratch, options.requests, 16))
    row("the vendor itself", direct[0], direct[1], None, None, fake)
    own = (load(gateway.url, scratch, options.requests, 1, "--distinct"),
           load(gateway.url, scratch, options.requests, 16, "--distinct"))
    row("embeddery", *own, direct[0], None, gateway)
    for name, start, headers in (("LiteLLM proxy", litellm, ""), ("Portkey", portkey, portkey_headers)):
        with start(fake.url, scratch) as peer:
            load(peer.url, scratch, 40, 4, "--headers", headers)
            measured = [load(peer.url, scratch, options.peers, connections, "--distinct", "--headers", headers)
                        for connections in (1, 16)]
            row(name, *measured, direct[0], own[1], peer)
    print("\n100 texts a request, requests/s at 4 connections, floats and base64:")
    for name, url in (("the vendor itself", fake.url), ("embeddery", gateway.url)):
        floats, packed = (load(url, scratch, 300, 4, "--batch", "100", "--distinct", *more) for more in ((), ("--base64",)))
        print(f"{name:<22}{floats['requests_per_s']:>9.0f}{packed['requests_per_s']:>9.0f}")


def row(name, one, many, direct, own, process) -> None:
    added = [f"{one[key] - direct[key]:.3f}" if direct else "" for key in ("p50_ms", "p99_ms")]
    ratio = f"{own['requests_per_s'] / many['requests_per_s']:.1f}x" if own else ""
    print(f"{name:<22}{one['p50_ms']:>9.3f}{one['p99_ms']:>9.3f}{added[0]:>11}{added[1]:>11}"
          f"{many['requests_per_s']:>17.0f}{ratio:>8}{process.resident_mb():>7.0f}", flush=True)


def cached(fake: Process, scratch: pathlib.Path, options) -> None:
    with ours(fake.url, scratch, cache="5000") as gateway:
        load(gateway.url, scratch, 200, 1)
        hit = load(gateway.url, scratch, options.requests, 1)
        print(f"\na cache hit, one connection: p50 {hit['p50_ms']:.3f} ms, p99 {hit['p99_ms']:.3f} ms")


def counted(fake: Process, scratch: pathlib.Path) -> None:
    """Texts that reach the vendor for three repeats in a request, and for fifty identical requests at a time."""
    slow = [RELEASE / "examples/fake_upstream", "--length", "1536", "--delay-ms", "200"]
    with listening(Process(slow, stdout=subprocess.PIPE, text=True)) as vendor:
        with ours(vendor.url, scratch, cache="5000") as gateway:
            body = json.dumps({"model": MODEL, "input": ["three times"] * 3}).encode()
            request = urllib.request.Request(f"{gateway.url}/v1/embeddings", body, {
                "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
            urllib.request.urlopen(request).read()
            load(gateway.url, scratch, 50, 50)
    print(f"three repeats in a request and 50 identical concurrent requests reached the vendor as: {vendor.counts.strip()}")


if __name__ == "__main__":
    sys.exit(main())
