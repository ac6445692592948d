#!/usr/bin/env python3
"""Dockerfile, compose files and systemd units, each by its own tool, and what no tool looks at: that containers share
what they must share, and that files name commands and variables which exist."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
EXPOSURE = 15  # tenths; systemd calls below 20 "OK", what is left is the network that a server needs


def main() -> None:
    run(BIN / "hadolint", "Dockerfile")
    run(BIN / "yamllint", "--strict", "-c", "ops/yamllint.yaml", "deploy/compose", "deploy/prometheus", "ops")
    for file in sorted((ROOT / "deploy/compose").glob("*.compose.yaml")):
        run(BIN / "check-jsonschema", "--quiet", "--builtin-schema", "vendor.compose-spec", file)
        sharing(file)
    units(sorted((ROOT / "deploy/systemd").glob("*.service")))


def run(*command: object) -> None:
    """Any output is a finding: some tools report and exit 0."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True, check=False)
    output = (done.stdout + done.stderr).strip()
    if done.returncode or output:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{output}")
    print("ok", pathlib.Path(command[0]).name, *(str(part).removeprefix(f"{ROOT}/") for part in command[-1:]))


def sharing(file: pathlib.Path) -> None:
    """All of our containers see the same data, models and keys, and files that are mounted exist."""
    services = yaml.safe_load(file.read_text())["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "embeddery"}
    mounts = [sorted(v for v in service["volumes"] if "embeddings_config" not in v) for service in ours.values()]
    keys = [{k for k in service["environment"] if k.endswith("_KEY") or k.endswith("_URL")} for service in ours.values()]
    if any(mount != mounts[0] for mount in mounts) or any(key != keys[0] for key in keys):
        sys.exit(f"{file}: {', '.join(ours)} do not have the same volumes and keys")
    for service in services.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", [])):
            if pathlib.Path(source).suffix and not (file.parent / source).is_file():
                sys.exit(f"{file}: {source} is mounted and does not exist")


def units(files: list[pathlib.Path]) -> None:
    if not shutil.which("systemd-analyze"):
        print("SKIPPED systemd units: no systemd-analyze here (Debian: package systemd)")
        return
    with tempfile.TemporaryDirectory() as scratch:
        # The binary is not installed where the units say, and verify asks.
        for file in files:
            text = file.read_text()
            if not re.search(r"^ExecStart=/usr/local/bin/embeddery (serve|orchestrator|worker)\b", text, re.M):
                sys.exit(f"{file}: ExecStart is not ours")
            (pathlib.Path(scratch) / file.name).write_text(text.replace("/usr/local/bin/embeddery", "/bin/true"))
        for file in files:
            unit = f"{scratch}/{file.name}"
            run("systemd-analyze", "verify", "--man=no", unit)
            security = ["systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={EXPOSURE}", unit]
            done = subprocess.run(security, text=True, capture_output=True, check=False)
            overall = [line for line in done.stdout.splitlines() if "Overall exposure" in line]
            if done.returncode or not overall:
                sys.exit(f"{file}: more exposed than {EXPOSURE / 10}\n{done.stdout}{done.stderr}")
            print("ok", overall[0].lstrip("→ "))


if __name__ == "__main__":
    main()
