#!/usr/bin/env python3
"""The OpenAPI document and the running server say the same: schemathesis asks everything that the document allows, then
the requests of api_requests.py are asked of servers in every kind of trouble, and the servers' own count of their answers
(`http_requests_total`) is laid beside the document. Nothing is answered that is not documented, and every documented status
is seen, with the exceptions named below.
Usage: check_api.py EMBEDDERY FAKE_UPSTREAM MODELS"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from api_requests import everything
from api_servers import KEY, Servers

# Documented, and nothing that can be done from outside makes it happen.
API = "/api/v1/embeddings"
LETTERS = "a dead letter is the end of many attempts: crates/embeddery/tests/pipeline/operation.rs makes some"
UNSEEN = {
    **dict.fromkeys(((f"{API}/dlq/requeue", "200"), (f"{API}/dlq/requeue", "409"), (f"{API}/dlq/state", "200")), LETTERS),
    **dict.fromkeys(
        ((f"{API}/dlq/requeue", "503"), (f"{API}/dlq/requeue/bulk", "503"), (f"{API}/dlq/state", "503")),
        "an id that no letter has is refused before the queue is asked",
    ),
    (f"{API}/collections-backup", "503"): "a PostgreSQL that is away says 409 first: it is backed up by pg_dump",
    (f"{API}/collections/{{name}}/documents", "409"): "a model whose space changes under its name",
    (f"{API}/config/reload", "503"): "only while the process ends",
    **dict.fromkeys(
        ((f"{API}/models/download", "502"), (f"{API}/models/warmup", "502")),
        "files that arrive with a wrong checksum: crates/model-store/tests/store/faults.rs sends some",
    ),
    (f"{API}/models/unload", "503"): "every provider is built in",
}
# Never documented by route: HTTP's own words for a request that is no request of ours.
OF_HTTP = {"405", "431"}
ANSWERED = re.compile(r'^http_requests_total\{method="(\w+)",endpoint="([^"]+)",status="(\w+)"\}', re.M)


def main() -> None:
    embeddery, upstream, models = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        servers = Servers(pathlib.Path(scratch), embeddery, upstream, models, stack)
        document = json.loads(servers["plain"].get("/openapi.json"))
        schemathesis(servers["whole"].url, pathlib.Path(scratch))
        everything(document, servers)
        seen = {answer for server in servers.started() for answer in answers(server.get("/metrics", key=server.admin))}
    table(documented(document), seen)


def schemathesis(url: str, scratch: pathlib.Path) -> None:
    """Answers fit their schemas, statuses are documented, nothing breaks."""
    (scratch / "schemathesis.toml").write_text(
        # Endless answers are not for a tool that waits for the end.
        '[[operations]]\ninclude-path = "/api/v1/embeddings/orchestrator/events"\nenabled = false\n'
    )
    # Lines of JSON, which the tool does not know.
    (scratch / "hooks.py").write_text(
        'import schemathesis\n@schemathesis.serializer("application/x-ndjson")\ndef lines(context, value):\n'
        '    return value if isinstance(value, bytes) else str(value).encode()\n'
    )
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        pathlib.Path(sys.executable).parent / "schemathesis", f"--config-file={scratch}/schemathesis.toml", "run",
        f"{url}/openapi.json", f"--header=X-API-KEY: {KEY}", f"--checks={checks}", "--seed=7", "--max-examples=20",
        "--phases=examples,coverage,fuzzing", "--generation-database=none", "--request-timeout=30", "--no-color", "--workers=2",
        "--suppress-health-check=all", "--max-time=100",
    ]
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(scratch)}
    done = subprocess.run(list(map(str, command)), cwd=scratch, env=hooks, text=True, capture_output=True, check=False, timeout=400)
    if done.returncode:
        sys.exit(f"{done.stdout[-20000:]}\n{done.stderr[-2000:]}")
    print("ok schemathesis:", " ".join(line.strip() for line in done.stdout.splitlines() if "generated" in line or "passed" in line))


def documented(document: dict) -> set:
    return {
        (method.upper(), path, status)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }


def answers(metrics: str) -> set:
    return {(method, path.replace("{*", "{"), status) for method, path, status in ANSWERED.findall(metrics)}


def table(documented: set, seen: set) -> None:
    routes = {(method, path) for method, path, _ in documented}
    # A defect of the server is not to be had from outside: failures.rs makes one inside.
    excused = {answer for answer in documented - seen if answer[1:] in UNSEEN or answer[2] == "500"}
    silent = documented - seen - excused
    stale = {f"{path} {status}" for path, status in UNSEEN if (path, status) not in {answer[1:] for answer in excused}}
    # HEAD is GET without a body; a method that a path does not take is no route.
    strange = {answer for answer in seen - documented if answer[:2] in routes and answer[2] not in OF_HTTP | {"hung_up"}}
    for method, path in sorted(routes, key=lambda route: route[::-1]):
        statuses = sorted(status for at, place, status in documented | strange if (at, place) == (method, path))
        marks = {True: "", False: "?"}
        line = [
            f"{status}!" if (method, path, status) in strange else status + marks[(method, path, status) in seen] for status in statuses
        ]
        print(f"{method:<7}{path:<60}{' '.join(line)}")
    print("?: documented and not seen (500: a defect of the server):")
    for (path, status), why in UNSEEN.items():
        print(f"  {path} {status}: {why}")
    if silent or strange or stale:
        sys.exit(f"documented and not seen: {sorted(silent)}\nseen and not documented: {sorted(strange)}\nexcused and seen: {sorted(stale)}")
    print(f"ok API: {len(seen & documented)} of {len(documented)} documented answers seen, on {len(routes)} routes")


if __name__ == "__main__":
    main()
