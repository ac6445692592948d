#!/usr/bin/env python3
"""Walks a page: what its `console` blocks show after `$ ` (and `> `, where a command goes on) is typed into one bash, in
an empty directory, and must print what the page shows. `…` stands for what differs from run to run or is left out.
Usage: guide_walk.py PAGE TARGET PROMETHEUS MODELS [--write: the page gets the outputs that differ]

The ports of the page are replaced by free ones, so that a walk disturbs nothing else on this machine."""

import argparse
import contextlib
import difflib
import os
import pathlib
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PORTS = ("8000", "9090", "9091", "6379", "8089", "11434")
SECONDS = 60  # the longest that a command may take
END = "--that-was-it--"
# What --write leaves out: times, ids, most of a vector.
VARYING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{8}-[0-9a-f-]{27}|(?<=_ms=)[\d.]+|(?<=\d,)(?:-?[\d.]+(?:e-\d+)?,?){8,}(?=\])")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("page", "target", "prometheus", "models"):
        arguments.add_argument(name, type=lambda text: pathlib.Path(text).resolve())
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    path = (options.target, options.target / "examples", pathlib.Path(sys.executable).parent, options.prometheus)
    with tempfile.TemporaryDirectory() as scratch, shell(scratch, path, options.models) as bash:
        walked, different = walk(options.page.read_text().splitlines(), bash)
    if options.write:
        options.page.write_text("\n".join(walked) + "\n")
    typed = sum(line.startswith("$ ") for line in walked)
    if different:
        sys.exit(f"{options.page.name}: {different} of {typed} commands printed something else")
    print(f"ok {options.page.name}: {typed} commands print what the page shows")


def walk(page: list[str], bash: "Bash") -> tuple[list[str], int]:
    """The page with the outputs of now where they differ, and how many do."""
    walked, different, lines, inside = [], 0, page[::-1], False
    while lines:
        line = lines.pop()
        walked.append(line)
        inside = line == "```console" or inside and line != "```"
        if not (inside and line.startswith("$ ")):
            continue
        command = [line[2:]]
        while lines[-1].startswith("> "):
            walked.append(lines.pop())
            command.append(walked[-1][2:])
        shown = []
        while lines[-1] != "```" and not lines[-1].startswith("$ "):
            shown.append(lines.pop())
        found = bash.type("\n".join(command))
        if not re.fullmatch(".*?".join(map(re.escape, "\n".join(shown).split("…"))), "\n".join(found), re.DOTALL):
            different += 1
            print("\n".join(difflib.unified_diff(shown, found, "the page", f"$ {command[0]}", lineterm="", n=0)), flush=True)
            shown = [VARYING.sub("…", line) for line in found]
        walked += shown
    return walked, different


class Bash:
    """A bash that is typed into."""

    def __init__(self, process: subprocess.Popen, keyboard: int, ports: dict[str, str]) -> None:
        self.process, self.keyboard, self.ports = process, keyboard, ports
        self.selector = selectors.DefaultSelector()
        self.selector.register(process.stdout, selectors.EVENT_READ)

    def type(self, command: str) -> list[str]:
        """The lines that it prints, and its exit code where it is not 0."""
        typed = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda port: self.ports[port[0]], command)
        os.write(self.keyboard, f"{typed}\necho {END}$?\n".encode())
        printed, until = "", time.monotonic() + SECONDS
        while not (ended := re.search(rf"{END}(\d+)\n$", printed)):
            piece = os.read(self.process.stdout.fileno(), 1 << 16) if self.selector.select(until - time.monotonic()) else b""
            if not piece:
                sys.exit(f"`{command}` does not come to an end:\n{printed}")
            printed += piece.decode(errors="replace")
        printed = printed[: ended.start()].replace("\r", "")
        for port, free in self.ports.items():
            printed = re.sub(rf"(?<![\d.]){free}\b", port, printed)
        lines = printed.splitlines()
        return lines if ended[1] == "0" else [*lines, f"[exit {ended[1]}]"]


@contextlib.contextmanager
def shell(scratch: str, path: tuple, models: pathlib.Path):
    for name in ("Dockerfile", "deploy", "ops", "docs"):
        (pathlib.Path(scratch) / name).symlink_to(ROOT / name)
    # ONNX Runtime is looked for there.
    (pathlib.Path(scratch) / ".cache").symlink_to(ROOT / ".cache")
    ports = {port: free_port() for port in PORTS}
    (pathlib.Path(scratch) / "models").mkdir()
    (pathlib.Path(scratch) / "models/embedding_models_data").symlink_to(models)
    environment = {
        "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
        "HOME": scratch,
        # The same on every machine: exact numbers, no hub.
        "EMBEDDINGS_PRECISION": "f32",
        "HF_HUB_OFFLINE": "1",
        "LC_ALL": "C.UTF-8",
        "EMBEDDINGS_LISTEN": f"127.0.0.1:{ports['8000']}",
    }
    # Not from standard input, which commands could read.
    script, keyboard = os.pipe()
    process = subprocess.Popen(
        ["bash", "--norc", f"/dev/fd/{script}"], cwd=scratch, env=environment, pass_fds=[script], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        yield Bash(process, keyboard, ports)
    finally:
        # Whatever the page started and did not end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


if __name__ == "__main__":
    main()
