#!/usr/bin/env python3
"""Installs Debian's redis-server where there is none. Tests start their own on free ports; the service that the
package brings is switched off again."""

import os
import pathlib
import shutil
import subprocess
import sys


def main() -> None:
    if shutil.which("redis-server"):
        return
    if not shutil.which("apt-get"):
        sys.exit("tests need redis-server 7 or newer; install it with this system's package manager")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    apt = [*as_root, "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*apt, "install", "-y", "--no-install-recommends", "redis-server"]
    if subprocess.run(install, env=environment, check=False).returncode != 0:
        # Most likely the lists are missing or old, as in a fresh container.
        subprocess.run([*apt, "update"], env=environment, check=True)
        subprocess.run(install, env=environment, check=True)
    if pathlib.Path("/run/systemd/system").is_dir():
        subprocess.run([*as_root, "systemctl", "disable", "--now", "redis-server"], check=False)


if __name__ == "__main__":
    main()
