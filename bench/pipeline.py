#!/usr/bin/env python3
"""`make bench`, the pipeline: documents a second beside the bare gateway on the same texts and cores (both queues),
with 1, 2, 4 and 8 workers before a vendor that takes 50 ms, and how long a killed worker's documents wait."""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from texts import mixed

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
KEY = "a-key-for-the-benchmark"
JOBS = "/api/v1/embeddings/jobs"
WORDS = " ".join(mixed(2000)).split()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--documents", type=int, default=2000)
    arguments.add_argument("--only", choices=["throughput", "workers", "recovery"])
    options = arguments.parse_args()
    parts = {"throughput": throughput, "workers": workers, "recovery": recovery}
    for name, part in parts.items():
        if options.only in (None, name):
            part(options.documents)


class Place:
    """A directory with a configuration, and the processes that share it."""

    def __init__(self, config: str, environment: dict, redis: bool):
        self.stack = contextlib.ExitStack()
        self.dir = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        (self.dir / "embeddery.yaml").write_text(config)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.dir), "SINGLE_USER_API_KEY": KEY, "LOG_LEVEL": "warning",
            "EMBEDDINGS_CACHE_MAX_SIZE": "0", "HF_HUB_OFFLINE": "1", **environment,
        }
        if redis:
            self.environment["REDIS_URL"] = f"redis://127.0.0.1:{self.redis()}/0"
        api = self.start("serve", "--listen", "127.0.0.1:0", stdout=subprocess.PIPE, text=True)
        self.url = api.stdout.readline().split()[-1]
        threading.Thread(target=api.stdout.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def redis(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
        self.child(command, cwd=self.dir, stdout=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
            time.sleep(0.05)
        raise AssertionError("redis-server does not start")

    def child(self, command, **options) -> subprocess.Popen:
        child = subprocess.Popen(command, **options)
        self.stack.callback(ended, child)
        return child

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        return self.child([RELEASE / "embeddery", *arguments], cwd=self.dir, env=self.environment, **options)

    def ask(self, path: str, body=None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)) as answer:
            return json.load(answer)

    def job(self, collection: str, documents: list) -> str:
        chunking = {"method": "paragraphs", "size": 100, "overlap": 0, "unit": "words"}
        return self.ask(JOBS, {"collection": collection, "documents": documents, "chunking": chunking})["job_id"]

    def wait(self, job: str) -> None:
        while (status := self.ask(f"{JOBS}/{job}")["status"]) in ("pending", "running"):
            time.sleep(0.02)
        assert status == "completed", status


def ended(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def documents(count: int, seed: int) -> list:
    """Documents of one to three paragraphs of a hundred words, a chunk each."""
    draw = random.Random(seed)

    def paragraph() -> str:
        start = draw.randrange(len(WORDS) - 100)
        return " ".join(WORDS[start:start + 100])

    texts = ["\n\n".join(paragraph() for _ in range(1 + number % 3)) for number in range(count)]
    return [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]


def throughput(count: int) -> None:
    environment = {"EMBEDDINGS_PRECISION": "f32", "EMBEDDINGS_MODEL_STORAGE_DIR": str(ROOT / "models/embedding_models_data")}
    rates = {}
    for redis in (False, True):
        with Place("", environment, redis) as place:
            if redis:
                place.start("worker")
            place.ask("/v1/embeddings", {"input": "warm"})
            place.wait(place.job("warm", documents(20, 0)))
            if not redis:
                rates["gateway"] = gateway(place, documents(count, 1))
            job_documents = documents(count, 2 + redis)
            chunks = sum(document["text"].count("\n\n") + 1 for document in job_documents)
            began = time.monotonic()
            place.wait(place.job("notes", job_documents))
            rates["redis" if redis else "embedded"] = chunks / (time.monotonic() - began)
    print(f"MiniLM f32, {count} documents of 1-3 chunks of 100 words, {os.cpu_count()} cores")
    for name, rate in rates.items():
        print(f"  {name:<10}{rate:9.1f} texts/s   {rate / rates['gateway']:.2f} of the gateway")


def gateway(place: Place, given: list) -> float:
    """The same kind of texts by /v1/embeddings: 64 a request, four connections."""
    texts = [text for document in given for text in document["text"].split("\n\n")]
    requests = [texts[first:first + 64] for first in range(0, len(texts), 64)]
    lock = threading.Lock()

    def load() -> None:
        while True:
            with lock:
                if not requests:
                    return
                inputs = requests.pop()
            place.ask("/v1/embeddings", {"input": inputs, "encoding_format": "base64"})

    threads = [threading.Thread(target=load) for _ in range(4)]
    began = time.monotonic()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return len(texts) / (time.monotonic() - began)


@contextlib.contextmanager
def before_a_vendor(delay_ms: int, config: str):
    command = [RELEASE / "examples/fake_upstream", "--length", "384", "--delay-ms", str(delay_ms)]
    vendor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = vendor.stdout.readline().split()[-1]
        model = f"{{provider: local_api, model_name_or_path: fake, api_url: \"{url}/v1/embeddings\", dimensions: 384}}"
        config = f"default_model_id: fake\nmodels:\n  fake: {model}\nupstream: {{concurrency: 1000}}\n{config}"
        with Place(config, {}, redis=True) as place:
            yield place
    finally:
        vendor.kill()
        vendor.wait()


def workers(count: int) -> None:
    """One document a call and one call a worker at a time: what is measured is how workers share a queue."""
    config = "workers: {concurrency: 1, slots: {chunking: 16, embedding: 1, storage: 16}}\n"
    print(f"a vendor that takes 50 ms, one document a call, {os.cpu_count()} cores")
    first = None
    for number in (1, 2, 4, 8):
        with before_a_vendor(50, config) as place:
            for _ in range(number):
                place.start("worker")
            place.wait(place.job("warm", documents(2 * number, 0)))
            size = max(100, count * number // 16)
            given = [{"id": document["id"], "text": document["text"].split("\n\n")[0]} for document in documents(size, number)]
            began = time.monotonic()
            place.wait(place.job("notes", given))
            rate = size / (time.monotonic() - began)
            first = first or rate
            print(f"  {number} workers {rate:8.1f} documents/s   {rate / first:5.2f}x")


def recovery(_: int) -> None:
    """The only worker is killed with 16 documents in its hands while another waits."""
    config = "queue: {lease_seconds: 5}\n"
    with before_a_vendor(1000, config) as place:
        worker = place.start("worker")
        place.wait(place.job("warm", documents(1, 0)))
        job = place.job("notes", documents(16, 1))
        time.sleep(0.5)
        place.start("worker")
        worker.kill()
        killed = time.monotonic()
        place.wait(job)
        print(f"leases of 5 s, a vendor that takes 1 s: all was stored {time.monotonic() - killed:.1f} s after SIGKILL")


if __name__ == "__main__":
    main()
