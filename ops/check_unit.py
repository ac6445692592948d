#!/usr/bin/env python3
"""Runs the systemd units as they are shipped, with all their restrictions, under a real systemd: one that is the first
process of namespaces of its own, over a throw-away layer on this machine's files. The API starts (Type=notify), embeds a
text, reads its configuration anew (ExecReload) and stops in time; with Redis the orchestrator does a job's work.
Usage: check_unit.py BINARY MODELS. Needs root, systemd, overlayfs and leave to mount; says so and does
nothing without."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
KEY = "a-key-of-the-unit-check"
LOG = "/run/embeddery.log"
PATIENCE = 60
APART = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child"]

# Nothing that is written here outlives the namespaces: layer is memory over this machine's files, and what only an
# installed system has to do (devices, mounts, the clock) is left out.
MOUNTS = """
set -eu
layer=$1 files=${2-} binary=${3-} model=${4-}
mount --make-rprivate /
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
cd "$layer/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
chmod 1777 tmp
mkdir dev/shm dev/pts dev/mqueue before
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
"""
BOOT = MOUNTS + """
cp -r "$files/." .
install -m 0755 "$binary" usr/local/bin/embeddery
chroot . systemd-sysusers /etc/sysusers.d/embeddery.conf
mkdir -p "var/lib/embeddery/models/embedding_models_data/MODEL"
cp -rL "$model/." "var/lib/embeddery/models/embedding_models_data/MODEL"
chroot . chown -R embeddery:embeddery /var/lib/embeddery
# Not chroot: whose root is changed so may have no user namespaces.
pivot_root . before
umount -l before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=unit-check.target --log-target=null
""".replace("MODEL", MODEL)


def main() -> None:
    binary, models = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    if missing := lacking():
        print(f"SKIPPED systemd units under systemd: {missing}")
        return
    with tempfile.TemporaryDirectory() as scratch, redis() as redis_url, Machine(scratch, binary, models) as machine:
        api_alone(machine)
        with_orchestrator(machine, redis_url)


def lacking() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    if tools := [tool for tool in ("unshare", "nsenter", "systemctl", "redis-server") if not shutil.which(tool)]:
        return f"no {', '.join(tools)} here"
    with tempfile.TemporaryDirectory() as layer:
        # A container may be refused what a machine is not.
        tried = subprocess.run([*APART, "bash", "-c", MOUNTS, "mounts", layer], text=True, capture_output=True, check=False)
    return f"no namespaces and mounts here: {tried.stderr.strip()}" if tried.returncode else None


def api_alone(machine: "Machine") -> None:
    port = free_port()
    machine.write("etc/embeddery/embeddery.env", f"SINGLE_USER_API_KEY={KEY}\nEMBEDDINGS_LISTEN=127.0.0.1:{port}\n")
    machine.ctl("start", "embeddery-api")
    confined(machine, "embeddery-api")
    answer = ask(port, "/v1/embeddings", {"input": "a text", "model": MODEL})
    if len(answer["data"][0]["embedding"]) != 384:
        sys.exit(f"no vector: {answer}")
    config = f"models:\n  after-reload: {{provider: huggingface, model_name_or_path: {MODEL}}}\n"
    machine.write("var/lib/embeddery/embeddery.yaml", config)
    machine.ctl("reload", "embeddery-api")
    until("the reload", lambda: "after-reload" in json.dumps(ask(port, "/v1/models")))
    stop(machine, "embeddery-api")
    print("ok embeddery-api.service: starts confined, embeds, reloads, stops")


def with_orchestrator(machine: "Machine", redis_url: str) -> None:
    port, metrics = free_port(), free_port()
    machine.write(
        "etc/embeddery/embeddery.env",
        f"SINGLE_USER_API_KEY={KEY}\nEMBEDDINGS_LISTEN=127.0.0.1:{port}\nREDIS_URL={redis_url}\nPROMETHEUS_PORT={metrics}\n",
    )
    machine.write("etc/embeddery/embeddings_config.yaml", (ROOT / "deploy/compose/embeddings_config.yaml").read_text())
    machine.ctl("start", "embeddery-api", "embeddery-orchestrator")
    confined(machine, "embeddery-orchestrator")
    documents = [{"id": str(n), "text": f"Document {n}."} for n in range(5)]
    path = "/api/v1/embeddings/jobs"
    job = ask(port, path, {"collection": "notes", "documents": documents, "model": MODEL})["job_id"]
    until("the job", lambda: ask(port, f"{path}/{job}")["status"] == "completed")
    stop(machine, "embeddery-orchestrator", "embeddery-api")
    print("ok embeddery-orchestrator.service: starts confined, does a job, stops")


def confined(machine: "Machine", unit: str) -> None:
    """Not what the unit asks for, but what the kernel says of the process."""
    pid = machine.show(unit, "MainPID")
    status = dict(line.split(":\t", 1) for line in machine.inside("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
    due = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    if wrong := {name: status.get(name) for name, value in due.items() if status.get(name) != value}:
        sys.exit(f"{unit} is not confined: {wrong}")
    if status["Uid"].split()[0] == "0":
        sys.exit(f"{unit} runs as root")
    mounts = machine.inside("cat", f"/proc/{pid}/mounts").splitlines()
    if not any(mount.split()[1] == "/" and "ro" in mount.split()[3].split(",") for mount in mounts):
        sys.exit(f"{unit} can write everywhere")


def stop(machine: "Machine", *units: str) -> None:
    """Who takes longer than TimeoutStopSec is killed, and then failed, as who ends with another code than 0."""
    machine.ctl("stop", *units)
    for unit in units:
        ended = machine.show(unit, "ActiveState"), machine.show(unit, "Result")
        if ended != ("inactive", "success"):
            sys.exit(f"{unit} did not stop in order: {ended}\n{machine.log()}")


class Machine:
    """A systemd and what it runs. Whatever happens, it ends with this process."""

    def __init__(self, scratch: str, binary: pathlib.Path, models: pathlib.Path) -> None:
        layer, files = pathlib.Path(scratch, "layer"), pathlib.Path(scratch, "files")
        layer.mkdir()
        for path, text in installed().items():
            (files / path).parent.mkdir(parents=True, exist_ok=True)
            (files / path).write_text(text)
        command = [*APART, "bash", "-c", BOOT, "boot", layer, files, binary, models / MODEL]
        self.first = None
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Machine":
        def running() -> bool:
            if self.process.poll() is not None:
                sys.exit(f"systemd did not start: {self.process.stderr.read()}")
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if not children:
                return False
            self.first = children[0]
            return self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

        until("systemd", running)
        return self

    def __exit__(self, *_: object) -> None:
        # The first process of a namespace takes all others along.
        os.kill(int(self.first or self.process.pid), signal.SIGKILL)
        self.process.wait()

    def run(self, *command: str, text: str | None = None) -> subprocess.CompletedProcess:
        enter = ["nsenter", "-t", self.first, "-m", "-p", "-u", "-i", "-C", "--wd=/"]
        return subprocess.run([*enter, *command], input=text, text=True, capture_output=True, timeout=2 * PATIENCE, check=False)

    def inside(self, *command: str, text: str | None = None) -> str:
        done = self.run(*command, text=text)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout

    def ctl(self, action: str, *units: str) -> None:
        done = self.run("systemctl", action, *units)
        if done.returncode:
            sys.exit(f"{done.stderr}{self.run('systemctl', 'status', '--no-pager', *units).stdout}\n{self.log()}")

    def show(self, unit: str, name: str) -> str:
        return self.inside("systemctl", "show", "--value", "-p", name, unit).strip()

    def write(self, path: str, text: str) -> None:
        self.inside("sh", "-c", f"mkdir -p /{pathlib.PurePath(path).parent} && cat > /{path} && chmod 0644 /{path}", text=text)

    def log(self) -> str:
        return self.run("tail", "-n", "30", LOG).stdout


def installed() -> dict[str, str]:
    """What an administrator puts in place, and targets that pull nothing in."""
    shipped = ROOT / "deploy/systemd"
    files = {"etc/sysusers.d/embeddery.conf": (shipped / "embeddery.sysusers.conf").read_text()}
    for target in ("unit-check", "sysinit", "basic", "network-online"):
        files[f"etc/systemd/system/{target}.target"] = "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n"
    for unit in shipped.glob("*.service"):
        files[f"etc/systemd/system/{unit.name}"] = unit.read_text()
        # There is no journal here.
        log = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n"
        files[f"etc/systemd/system/{unit.name}.d/log.conf"] = log
    return files


class redis:
    """A Redis that keeps what it has acknowledged."""

    def __enter__(self) -> str:
        self.directory, port = tempfile.TemporaryDirectory(), free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", self.directory.name, "--appendonly", "yes"]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        until("Redis", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        return f"redis://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def ask(port: int, path: str, body: dict | None = None) -> dict:
    headers = {"X-API-KEY": KEY, "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def until(what: str, so: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        if time.monotonic() > deadline:
            sys.exit(f"waited {PATIENCE} seconds for {what}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
