#!/usr/bin/env python3
"""Makes a virtual environment with pinned packages: make_venv.py DIRECTORY REQUIREMENTS [PIP OPTION...].
Nothing is done when the environment has been made from the same file before."""

import pathlib
import shutil
import subprocess
import sys
import venv


def main() -> None:
    directory, requirements = map(pathlib.Path, sys.argv[1:3])
    wanted, stamp = requirements.read_text(), directory / "made-from.txt"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True)
    pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *sys.argv[3:], "-r", requirements], check=True)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
