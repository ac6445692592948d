#!/usr/bin/env python3
"""Ten times as much as can be done, for a minute: what a local model and the gateway (before a vendor that takes 100 ms, twenty
calls at a time) still do, whether those who are turned away are told when to come back, whether /health and /metrics are
answered all the while, and how much memory it takes.
With --quick it lasts seconds, on whatever build there is, and only what holds on every machine is insisted on."""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEY = "sk-a-key-for-the-benchmark"
# Name: configuration (a queue so short holds only for --quick), what the load client is told quickly, and at length.
KINDS = {
    "local model": ({"engine": {"queue_tokens": 2000}}, ["--words", "8"], ["--batch", "8", "--words", "60"]),
    "gateway": ({"default_model_id": "slow", "upstream": {"concurrency": 20}}, [], []),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--target", type=pathlib.Path, default=ROOT / "target/release")
    arguments.add_argument("--models", type=pathlib.Path, default=ROOT / "models/embedding_models_data")
    arguments.add_argument("--quick", action="store_true")
    options = arguments.parse_args()
    for name, (config, quick, long) in KINDS.items():
        config, load = (config, quick) if options.quick else ({**config, "engine": {}}, long)
        with tempfile.TemporaryDirectory() as scratch:
            seen = measure(pathlib.Path(scratch), options, config, load)
        problems = wrong(seen)
        if problems:
            sys.exit(f"{name}: {'; '.join(problems)}\n{json.dumps(seen, indent=1)}")
        print(f"ok overload, {name}: " + ("answers " + json.dumps(seen["answers"]) if options.quick else json.dumps(seen, indent=1)))


def measure(scratch: pathlib.Path, options: argparse.Namespace, config: dict, load: list) -> dict:
    target = options.target.resolve()
    with contextlib.ExitStack() as stack:
        vendor, _ = listening(stack, [target / "examples/fake_upstream", "--length", "384", "--delay-ms", "100"])
        slow = {"provider": "local_api", "model_name_or_path": "slow", "api_url": f"{vendor}/v1/embeddings", "dimensions": 384}
        (scratch / "overload.yaml").write_text(json.dumps({"models": {"slow": slow}, **config}))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(scratch), "SINGLE_USER_API_KEY": KEY, "LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1",
            "EMBEDDINGS_MODEL_STORAGE_DIR": str(options.models.resolve()),
        }
        command = [target / "embeddery", "serve", "--listen", "127.0.0.1:0", "--config", "overload.yaml"]
        url, server = listening(stack, command, cwd=scratch, env=environment)
        client = [target / "examples/overload", url, KEY, *load, "--pid", server.pid, "--seconds", 6 if options.quick else 60, "--patience", 60]
        return json.loads(subprocess.run(list(map(str, client)), check=True, stdout=subprocess.PIPE, text=True).stdout)


def listening(stack: contextlib.ExitStack, command: list, **more: object) -> tuple:
    child = stack.enter_context(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, **more))
    stack.callback(child.terminate)
    return child.stdout.readline().split()[-1], child


def wrong(seen: dict) -> list:
    """What must hold however slow the machine is."""
    answers = seen["answers"]
    strange = set(answers) - {"200", "429", "503", "not_sent", "gave_up"}
    return [
        text
        for text, holds in {
            "nobody was served": answers.get("200", 0) > 0,
            f"answers that are no way to refuse: {strange}": not strange,
            "some who were turned away were not told when to come back": seen["busy_without_retry_after"] == 0,
            "/health was not answered": seen["health"]["failed"] == 0 and seen["health"]["asked"] > 0,
            "/metrics was not answered": seen["metrics"]["failed"] == 0 and seen["metrics"]["asked"] > 0,
            "memory grew by more than 500 MB": seen["memory_most_mb"] < seen["memory_before_mb"] + 500,
        }.items()
        if not holds
    ]


if __name__ == "__main__":
    main()
