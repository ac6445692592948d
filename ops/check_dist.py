#!/usr/bin/env python3
"""What `make dist` gives away, as its receiver meets it: checksums, the archive's files, man pages and completions, the
list of what is inside. Usage: check_dist.py BINARY, of any profile."""

import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHELLS = {"bash": "embeddery.bash", "zsh": "_embeddery", "fish": "embeddery.fish"}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        dist = pathlib.Path(scratch, "dist")
        run(sys.executable, ROOT / "scripts/dist.py", pathlib.Path(sys.argv[1]).resolve(), dist)
        run("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=dist)
        (archive,) = dist.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        unpacked = pathlib.Path(scratch, archive.name.removesuffix(".tar.gz"))
        if "serve" not in run(unpacked / "embeddery", "--help"):
            sys.exit("the binary in the archive does not run")
        contents(unpacked)
        man_pages(unpacked / "man")
        completions(unpacked / "completions")
        bill(unpacked / "embeddery.cdx.json", dist)


def run(*command: object, cwd: pathlib.Path = ROOT) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def contents(unpacked: pathlib.Path) -> None:
    due = ["LICENSE", "README.md", "CHANGELOG.md", "embeddery.default.yaml", "systemd/embeddery-api.service", "man/embeddery.1"]
    if missing := [name for name in due if not (unpacked / name).is_file()]:
        sys.exit(f"not in the archive: {missing}")
    print("ok archive, checksums")


def man_pages(directory: pathlib.Path) -> None:
    pages = sorted(directory.glob("*.1"))
    if not shutil.which("man"):
        print("SKIPPED man pages: no man here (Debian: packages man-db, groff)")
        return
    for page in pages:
        # --warnings makes groff tell what mandoc's lint would.
        text = run("man", "--warnings", "-E", "UTF-8", "-l", page)
        if "warning" in text or "NAME" not in text:
            sys.exit(f"{page.name}: {text}")
    print(f"ok {len(pages)} man pages")


def completions(directory: pathlib.Path) -> None:
    """Each shell reads its own; bash knows what comes after the name."""
    for shell, file in SHELLS.items():
        if shutil.which(shell):
            run(shell, "-n", directory / file)
        elif not (directory / file).read_text().strip():
            sys.exit(f"{file} is empty")
    asks = f'. "{directory / SHELLS["bash"]}"; COMP_WORDS=(embeddery ser); COMP_CWORD=1; _embeddery embeddery ser embeddery'
    if run("bash", "-c", f'{asks}; echo "${{COMPREPLY[@]}}"').strip() != "serve":
        sys.exit("bash does not complete 'embeddery ser'")
    print("ok completions")


def bill(file: pathlib.Path, dist: pathlib.Path) -> None:
    text = file.read_text()
    if wrong := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
        sys.exit(f"{file.name} is no CycloneDX 1.5: {wrong}")
    (beside,) = dist.glob("*.cdx.json")
    names = {component["name"] for component in json.loads(text)["components"]}
    if beside.read_text() != text or not {"axum", "tokio", "embeddery-engine"} <= names or "proptest" in names:
        sys.exit(f"{file.name} does not tell what is in the binary")
    print(f"ok list of {len(names)} crates (CycloneDX)")


if __name__ == "__main__":
    main()
