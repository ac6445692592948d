#!/usr/bin/env python3
"""Monitoring for real: our binary serves, a stand-in vendor answers, Prometheus scrapes. The exposition is valid before
and after traffic, every panel of the dashboard has an answer, every metric that an alert names exists.
Usage: check_monitoring.py EMBEDDERY FAKE_UPSTREAM PROMETHEUS_DIRECTORY MODELS"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy/prometheus/rules.yml"
KEY = "a-key-for-this-check"
GUIDES = ("embedding_requests_total", "embedding_request_duration_seconds_count", "embedding_cache_hits_total", "active_embedding_requests")
# What the orchestrator alone shows.
ORCHESTRATORS = re.compile(r"embedding_(queue|dlq|workers|stage)_")


def main() -> None:
    embeddery, upstream, tools, models = (pathlib.Path(argument).resolve() for argument in sys.argv[1:5])
    static(tools / "promtool")
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vendor = stack.enter_context(running(scratch, upstream, "--length", "1536")).url
        server = stack.enter_context(serving(scratch, embeddery, vendor, models))
        jobs = {"embeddery": server.url}
        metrics = get(f"{server.url}/metrics")
        check(tools / "promtool", metrics, "before traffic")
        for name in GUIDES:
            if not re.search(rf"^{name}(\{{[^}}]*\}})? 0$", metrics, re.M):
                sys.exit(f"{name} is not at zero in the first scrape:\n{metrics}")
        if "orchestrator" in subprocess.run([embeddery, "--help"], text=True, capture_output=True, check=True).stdout:
            jobs["embeddery-orchestrator"] = stack.enter_context(orchestrating(scratch, embeddery, models))
        traffic(server.url)
        prometheus = stack.enter_context(scraping(scratch, tools / "prometheus", jobs))
        wait("the first scrapes", lambda: up(prometheus, len(jobs)))
        if "embeddery-orchestrator" in jobs:
            wait("the orchestrator's look at the queue", lambda: query(prometheus, "embedding_queue_age_seconds_count > 0"))
        # A rate needs two scrapes with traffic between them.
        before = query(prometheus, "sum(scrape_samples_scraped)")
        for _ in range(3):
            traffic(server.url)
            time.sleep(1.1)
        wait("rates", lambda: query(prometheus, "sum(rate(embedding_requests_total[30s])) > 0") and before)
        for name, url in jobs.items():
            check(tools / "promtool", get(f"{url}/metrics"), f"{name}, after traffic")
        openmetrics = get(f"{server.url}/metrics", {"Accept": "application/openmetrics-text"})
        if not openmetrics.endswith("# EOF\n"):
            sys.exit("no OpenMetrics where they are asked for")
        panels(prometheus, "embeddery-orchestrator" in jobs)
        alerts(prometheus, "embeddery-orchestrator" in jobs)


def static(promtool: pathlib.Path) -> None:
    run(sys.executable, ROOT / "ops/make_dashboard.py", "--check")
    run(promtool, "check", "rules", RULES)
    run(promtool, "test", "rules", ROOT / "deploy/prometheus/rules_test.yml")
    tested = set(re.findall(r"alertname: (\w+)\n +exp_alerts", (ROOT / "deploy/prometheus/rules_test.yml").read_text()))
    untested = {rule["alert"] for rule in rules() if "alert" in rule} - tested
    if untested:
        sys.exit(f"no test makes these alerts fire: {', '.join(sorted(untested))}")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(RULES, scratch)
        for file in (ROOT / "deploy/prometheus/prometheus.yml", ROOT / "deploy/compose/prometheus.yml"):
            shutil.copy(file, scratch)
            run(promtool, "check", "config", f"{scratch}/prometheus.yml")
    print(f"ok promtool: configurations, {len(list(rules()))} rules, their tests")


def rules() -> list:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


class Process:
    def __init__(self, url: str) -> None:
        self.url = url


@contextlib.contextmanager
def running(scratch: pathlib.Path, *command: object, environment: dict | None = None):
    """A process that prints `listening on URL`; told to stop at the end."""
    log = open(scratch / f"{pathlib.Path(command[0]).name}-{len(list(scratch.iterdir()))}.log", "w+")  # noqa: SIM115
    process = subprocess.Popen(
        list(map(str, command)), cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        line = process.stdout.readline()
        if "listening on " not in line:
            log.seek(0)
            sys.exit(f"{command[0]} did not start: {line}{log.read()}")
        yield Process(line.split("listening on ")[1].strip())
    finally:
        process.terminate()
        process.wait(20)


def environment(scratch: pathlib.Path, models: pathlib.Path, **more: str) -> dict:
    return {
        "PATH": os.environ["PATH"],
        "HF_HUB_OFFLINE": "1",
        "SINGLE_USER_API_KEY": KEY,
        "USER_DB_BASE_DIR": str(scratch / "users"),
        "EMBEDDINGS_MODEL_STORAGE_DIR": str(models),
        **more,
    }


def serving(scratch: pathlib.Path, embeddery: pathlib.Path, vendor: str, models: pathlib.Path):
    """Everything that a panel shows happens: a vendor that is down, a fallback, an allow-list."""
    down = f"http://127.0.0.1:{free_port()}"
    (scratch / "embeddery.yaml").write_text(
        json.dumps(
            {
                "models": {
                    "first": {"provider": "cohere", "model_name_or_path": "embed-v4.0", "fallback": ["small"], "allow_space_change": True},
                    "small": {"provider": "openai", "model_name_or_path": "text-embedding-3-small"},
                },
                "policy": {"enforce": True, "allowed_providers": ["openai", "cohere", "huggingface"]},
                "retry": {"max_retries": 0},
            }
        )
    )
    variables = environment(
        scratch, models, OPENAI_API_KEY="x", OPENAI_BASE_URL=f"{vendor}/v1", COHERE_API_KEY="x", COHERE_BASE_URL=down
    )
    return running(scratch, embeddery, "serve", "--listen", "127.0.0.1:0", environment=variables)


@contextlib.contextmanager
def orchestrating(scratch: pathlib.Path, embeddery: pathlib.Path, models: pathlib.Path):
    port, redis_port = free_port(), free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--dir", scratch, "--appendonly", "yes"], stdout=subprocess.DEVNULL
    )
    variables = environment(scratch, models, REDIS_URL=f"redis://127.0.0.1:{redis_port}", PROMETHEUS_PORT=str(port))
    process = subprocess.Popen([embeddery, "orchestrator"], cwd=scratch, env=variables, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait("the orchestrator", lambda: get(f"{url}/metrics"))
        yield url
    finally:
        for child in (process, redis):
            child.terminate()
            child.wait(60)


@contextlib.contextmanager
def scraping(scratch: pathlib.Path, prometheus: pathlib.Path, jobs: dict):
    scrapes = [
        {"job_name": name, "static_configs": [{"targets": [url.removeprefix("http://")]}]} for name, url in jobs.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": scrapes,
    }
    (scratch / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        prometheus,
        f"--config.file={scratch}/prometheus.yml",
        f"--storage.tsdb.path={scratch}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with open(scratch / "prometheus.log", "w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait("Prometheus", lambda: get(f"{url}/-/ready"))
        yield url
    finally:
        process.terminate()
        process.wait(60)


def traffic(server: str) -> None:
    """Requests of every kind, with the status that each must get."""
    local = "sentence-transformers/all-MiniLM-L6-v2"
    openai = "text-embedding-3-small"
    native, v1 = "/api/v1/embeddings", "/v1/embeddings"
    for path, body, status in [
        (v1, {"input": "a", "model": local}, 200),
        (v1, {"input": ["a", "b"], "model": local}, 200),
        (native, {"input": "c", "model": local, "dimensions": 100}, 200),
        (v1, {"input": ["a", "b"], "model": openai}, 200),
        (v1, {"input": [1, 2, 3], "model": openai}, 200),
        (v1, {"input": f"{time.time()}", "model": "first"}, 200),
        (v1, {"input": f"{time.time()}", "model": "cohere:embed-english-v3.0"}, 503),
        (v1, {"input": "a", "model": "mistral:mistral-embed"}, 403),
        (v1, {"input": "", "model": openai}, 400),
        ("/nowhere", {}, 404),
    ]:
        headers = {"X-API-KEY": KEY, "Content-Type": "application/json"}
        request = urllib.request.Request(server + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found, text = answer.status, ""
        except urllib.error.HTTPError as error:
            found, text = error.code, error.read().decode()
        if found != status:
            sys.exit(f"{path} {body}: {found} instead of {status}: {text}")


def panels(prometheus: str, orchestrator: bool) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/embeddery-dashboard.json").read_text())
    targets = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    answered, later = 0, []
    for title, expression in targets:
        expression = expression.replace("$__rate_interval", "30s").replace("$job", ".+")
        if query(prometheus, expression):
            answered += 1
        elif ORCHESTRATORS.search(expression) and not orchestrator:
            later.append(title)
        else:
            sys.exit(f"the panel '{title}' shows nothing: {expression}")
    print(f"ok dashboard: {answered} queries answered by a live scrape")
    if later:
        print(f"SKIPPED, this binary has no orchestrator: {', '.join(sorted(set(later)))}")


def alerts(prometheus: str, orchestrator: bool) -> None:
    names = set(json.loads(get(f"{prometheus}/api/v1/label/__name__/values"))["data"])
    names |= {rule["record"] for rule in rules() if "record" in rule}
    evaluated = {rule["name"]: rule for group in json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"] for rule in group["rules"]}
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        found = evaluated[name]
        if found["health"] != "ok":
            sys.exit(f"{name}: {found.get('lastError') or found['health']}")
        used = set(re.findall(r"\b(?:embedd|circuit_|process_|http_)\w+(?::\w+)*", re.sub(r'"[^"]*"', "", rule["expr"])))
        missing = used - names
        if missing and (orchestrator or not all(ORCHESTRATORS.match(metric) for metric in missing)):
            sys.exit(f"{name}: nobody shows {', '.join(sorted(missing))}")
    print(f"ok alerts: {len(evaluated)} rules evaluated, every metric they name exists")


# The replaced service's name for failures of `orchestrator/summary`, which dashboards know; here it is no type.
NAMED_SO_BEFORE = ["orchestrator_summary_failures_total metric name should not include type 'summary'"]


def check(promtool: pathlib.Path, metrics: str, when: str) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=metrics, text=True, capture_output=True, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line and line not in NAMED_SO_BEFORE]
    # 3: the exposition is well formed, and a name is not to promtool's taste.
    if complaints or done.returncode not in (0, 3):
        sys.exit(f"promtool check metrics, {when}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"ok promtool check metrics, {when}: {len(metrics.splitlines())} lines")


def up(prometheus: str, targets: int) -> bool:
    return len(query(prometheus, "up == 1")) == targets


def query(prometheus: str, expression: str) -> list:
    return json.loads(get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))["data"]["result"]


def get(url: str, headers: dict | None = None) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return answer.read().decode()


def wait(what: str, ready) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.2)
    sys.exit(f"waited a minute in vain for {what}")


def run(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
