#!/usr/bin/env python3
"""Makes what is given away, in dist/: an archive with the release binary, completions, man pages, units and the list of
everything inside it (CycloneDX), and checksums. Usage: dist.py BINARY [DIRECTORY]. The archive is the same to the byte whenever the
same commit is built by the same compiler."""

import gzip
import hashlib
import io
import json
import pathlib
import platform
import re
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OLDEST_GLIBC = (2, 36)  # Debian 12, the oldest system that is supported


def main() -> None:
    binary = pathlib.Path(sys.argv[1]).resolve()
    version = run(binary, "--version").split()[1]
    target = f"{platform.machine()}-{platform.system().lower()}"
    check_glibc(binary)
    name = f"embeddery-{version}-{target}"
    dist = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "dist"
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run(binary, "generate", scratch)
        files = {
            "embeddery": binary.read_bytes(),
            "embeddery.cdx.json": (json.dumps(bill_of_materials(version), indent=1) + "\n").encode(),
        }
        for path in ("LICENSE", "README.md", "CHANGELOG.md"):
            files[pathlib.Path(path).name] = (ROOT / path).read_bytes()
        for directory, place in ((pathlib.Path(scratch), "."), (ROOT / "deploy/systemd", "systemd")):
            for path in directory.rglob("*"):
                if path.is_file():
                    files[str(pathlib.PurePath(place, path.relative_to(directory)))] = path.read_bytes()
    archive = dist / f"{name}.tar.gz"
    archive.write_bytes(packed(name, files))
    sums = {archive.name: archive.read_bytes(), f"{name}.cdx.json": files["embeddery.cdx.json"]}
    (dist / f"{name}.cdx.json").write_bytes(files["embeddery.cdx.json"])
    lines = [f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in sorted(sums.items())]
    (dist / "SHA256SUMS").write_text("".join(lines))
    print("".join(lines), end="")


def check_glibc(binary: pathlib.Path) -> None:
    """A binary asks for the symbol versions of the glibc that it was linked with."""
    found = {tuple(map(int, version)) for version in re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())}
    newest = max(found, default=(0, 0))
    if newest > OLDEST_GLIBC:
        wanted, oldest = (".".join(map(str, version)) for version in (newest, OLDEST_GLIBC))
        sys.exit(f"{binary} needs glibc {wanted}; build it where glibc is {oldest} (Debian 12), as the Dockerfile does")


def packed(name: str, files: dict) -> bytes:
    """Nothing of this machine is in the archive: no times, no owners, files by name."""
    time = int(run("git", "-C", ROOT, "log", "-1", "--format=%ct"))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mtime = len(content), time
            entry.mode = 0o755 if file == "embeddery" else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(tar.getvalue(), mtime=time)


def bill_of_materials(version: str) -> dict:
    """Every crate that is linked in, with licence and checksum."""
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", host()))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    (root,) = (id for id, package in packages.items() if package["name"] == "embeddery")
    linked, waiting = set(), [root]
    while waiting:
        current = waiting.pop()
        if current in linked:
            continue
        linked.add(current)
        for dependency in nodes[current]["deps"]:
            # Neither tests' dependencies nor those of build scripts are in the binary.
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    lock = (ROOT / "Cargo.lock").read_text()
    sums = {
        (name, number): checksum
        for name, number, checksum in re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "(.+)"', lock)
    }
    components = [component(packages[id], sums) for id in linked if id != root]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "embeddery", "version": version}},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
    }


def component(package: dict, sums: dict) -> dict:
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version}
    if (name, version) in sums:
        found["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
        found["purl"] = purl
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return found


def host() -> str:
    return re.search(r"host: (\S+)", run("rustc", "-vV"))[1]


def run(*command: object) -> str:
    return subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    main()
