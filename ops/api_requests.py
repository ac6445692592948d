"""Requests that get every answer which the OpenAPI document names: first what every route must answer to a caller who has no
key, sends too much, too slowly, or no JSON; then what is particular to a route. What came back is counted by the servers."""

import json
import time

from api_servers import Server, Servers

API = "/api/v1/embeddings"
COLLECTIONS, JOBS = f"{API}/collections", f"{API}/jobs"
MINILM = {"provider": "huggingface", "model_id": "sentence-transformers/all-MiniLM-L6-v2"}
LETTER = {"stage": "embedding", "entry_id": "none"}
LINES = "application/x-ndjson"

# A body that the route takes.
BODIES = {
    f"POST {API}": {"input": "a"},
    f"POST {API}/batch": {"texts": ["a"]},
    "POST /v1/embeddings": {"input": "a"},
    f"POST {COLLECTIONS}": {"name": "other"},
    f"POST {COLLECTIONS}/{{name}}/documents": {"documents": [{"id": "a", "text": "a"}]},
    f"DELETE {COLLECTIONS}/{{name}}/documents": {"ids": ["z"]},
    f"POST {COLLECTIONS}/{{name}}/import": '{"id": "b", "text": "b"}\n',
    f"POST {COLLECTIONS}/{{name}}/reembed": {"embedding_model": "text-embedding-3-small"},
    f"POST {COLLECTIONS}/{{name}}/search": {"query": "a"},
    f"POST {JOBS}": {"collection": "jobs", "documents": [{"text": "a"}]},
    f"POST {API}/job/skip": {"job_id": "00000000-0000-0000-0000-000000000000"},
    f"POST {API}/job/priority/bump": {"job_id": "00000000-0000-0000-0000-000000000000", "priority": "high"},
    f"POST {API}/dlq/requeue": LETTER,
    f"POST {API}/dlq/requeue/bulk": {"stage": "embedding", "entry_ids": ["none"]},
    f"POST {API}/dlq/state": {**LETTER, "state": "ignored"},
    f"POST {API}/dlq/purge": {"stage": "embedding", "all": True},
    f"POST {API}/stage/control": {"stage": "all", "action": "resume"},
    f"POST {API}/models/download": MINILM,
    f"POST {API}/models/warmup": MINILM,
    f"POST {API}/models/unload": MINILM,
}
# Query parameters without which a route says 400.
QUERIES = {f"GET {API}/job/skip/status": "?job_id=00000000-0000-0000-0000-000000000000", f"GET {API}/ledger/status": "?idempotency_key=none"}


def everything(document: dict, servers: Servers) -> None:
    operations = [
        (method.upper(), path, operation) for path, methods in document["paths"].items() for method, operation in methods.items()
    ]
    servers["plain"].ask("POST", COLLECTIONS, {"name": "notes"})
    # The last route that is asked removes the user.
    for method, path, operation in sorted(operations, key=lambda operation: operation[1].endswith("/users/me")):
        alike(servers, method, path, operation)
    embedding(servers)
    models(servers)
    collections(servers)
    jobs(servers)
    operators(servers)


def alike(servers: Servers, method: str, path: str, operation: dict) -> None:
    name = f"{method} {path}"
    body, query = BODIES.get(name), QUERIES.get(name, "")
    some = "00000000-0000-0000-0000-000000000000" if path.startswith(JOBS) else "a"
    here = path.replace("{provider}", "openai").replace("{name}", "notes").replace("{id}", some) + query
    nowhere = path.replace("{provider}", "nobody").replace("{name}", "absent").replace("{id}", "absent") + query
    kind = LINES if path.endswith("/import") else "application/json"
    plain = servers["plain"]
    plain.ask(method, here, body, kind=kind)
    plain.ask(method, nowhere, body, kind=kind)
    if "security" in operation:
        plain.ask(method, here, body, key=None, kind=kind)
        servers["guessed"].ask(method, here, body, key=None, kind=kind)
        servers["many"].ask(method, here, body, key=servers["many"].user, kind=kind)
    servers["away"].ask(method, here, body, kind=kind)
    if "requestBody" in operation:
        plain.ask(method, here, "{", kind=kind)
        plain.ask(method, here, "[]\n", kind=kind)
        plain.ask(method, here, "a", kind="text/plain")
        servers["tight"].ask(method, here, " " * 2000, kind=kind)
        servers["tight"].dawdle(method, here, kind)


def embedding(servers: Servers) -> None:
    plain, hasty, rated = servers["plain"], servers["hasty"], servers["rated"]
    for path, texts in ((API, "input"), ("/v1/embeddings", "input"), (f"{API}/batch", "texts")):
        for model in ("mistral:mistral-embed", "no-such-model", "liar", "openai:none", "cohere:embed-v4.0"):
            plain.ask("POST", path, {texts: ["a"], "model": model})
        plain.ask("POST", path, {texts: []})
        plain.ask("POST", path, {texts: 5})
        hasty.ask("POST", path, {texts: ["a"], "model": "slow"})
        for _ in range(2):
            rated.ask("POST", path, {texts: ["a"]})
    rated.ask("GET", f"{API}/tenant/quotas")


def models(servers: Servers) -> None:
    plain, many, hub = servers["plain"], servers["many"], servers["hub"]
    for verb in ("download", "warmup", "unload"):
        path = f"{API}/models/{verb}"
        for body in ({}, {"model": "no-such-model"}, {"model": "org/absent"}, {"model": "mistral:mistral-embed"}, {"model": "cohere:embed-v4.0"}):
            plain.ask("POST", path, body)
        for model in ("org/absent", "org/broken", "liar", "onnx:org/broken"):
            hub.ask("POST", path, {"model": model})
    for path in (f"{API}/models", "/v1/models"):
        for model in ("vendor", "no-such-model", "org/absent", "mistral:mistral-embed", "%FF", MINILM["model_id"], "cohere:embed-v4.0"):
            plain.ask("GET", f"{path}/{model}")
        hub.ask("GET", f"{path}/org/broken")
    hub.ask("GET", "/ready")
    many.ask("GET", "/metrics", key=None)
    many.ask("GET", "/api/v1/metrics/text", key=None)


def collections(servers: Servers) -> None:
    plain, full, hasty = servers["plain"], servers["full"], servers["hasty"]
    notes = f"{COLLECTIONS}/notes"
    plain.ask("DELETE", notes)
    for body in ({"name": "notes"}, {"name": "notes"}, {"name": ".."}, {"name": "lost", "embedding_model": "no-such-model"}, {"name": 5}):
        plain.ask("POST", COLLECTIONS, body)
    full.ask("POST", COLLECTIONS, {"name": "late"})
    add = f"{notes}/documents"
    for body in ({"documents": [{"id": "a", "text": "a"}]}, {"documents": []}, {"documents": 5}):
        plain.ask("POST", add, body)
    full.ask("POST", add, {"documents": [{"id": "c", "text": "c"}]})
    for path in (add, f"{add}/a", f"{add}?limit=0", f"{add}?limit=many", f"{notes}/stats", f"{notes}/export", notes):
        plain.ask("GET", path)
    for body in ({"query": "a"}, {"query": "a", "top_k": 0}, {"vector": [1.0]}, {"query": 5}, {"vector": [0.1] * 8, "space": "another"}):
        plain.ask("POST", f"{notes}/search", body)
    for body in ('{"id": "b", "text": "b"}\n', '{"id": 5}\n', '{"id": "b", "text": "b", "space": "another", "vector": [1]}\n'):
        plain.ask("POST", f"{notes}/import", body, kind=LINES)
        full.ask("POST", f"{notes}/import", body, kind=LINES)
    plain.ask("POST", COLLECTIONS, {"name": "mini", "embedding_model": MINILM["model_id"]})
    plain.ask("POST", f"{COLLECTIONS}/mini/documents", {"documents": [{"text": "a"}]})
    plain.ask("POST", f"{notes}/import", plain.get(f"{COLLECTIONS}/mini/export"), kind=LINES)
    plain.ask("DELETE", add, {})
    plain.ask("DELETE", add, {"ids": ["b"]})
    plain.ask("DELETE", add, {"ids": 5})
    for collection, model in (("slow", "slow"), ("liar", "liar")):
        plain.ask("POST", COLLECTIONS, {"name": collection, "embedding_model": model, "dimensions": 8})
        plain.ask("POST", f"{COLLECTIONS}/{collection}/documents", {"documents": [{"text": "a"}]})
    for name in ("hasty", "lying", "strict"):
        servers[name].ask("POST", add, {"documents": [{"text": f"new to {name}"}]})
        servers[name].ask("POST", f"{notes}/search", {"query": f"new to {name}"})
    for model in ("no-such-model", 5, "liar", "mistral:mistral-embed"):
        plain.ask("POST", f"{notes}/reembed", {"embedding_model": model})
        plain.ask("POST", COLLECTIONS, {"name": "more", "embedding_model": model})
    hasty.ask("POST", f"{notes}/reembed", {"embedding_model": "slow"})
    hasty.ask("POST", COLLECTIONS, {"name": "more", "embedding_model": "slow"})
    full.ask("POST", f"{notes}/reembed", {"embedding_model": "slow"})
    for _ in range(2):
        plain.ask("POST", f"{notes}/reembed", {"embedding_model": "slow"})
    full.ask("POST", f"{API}/collections-backup")
    plain.ask("DELETE", f"{add}/a")
    plain.ask("DELETE", notes)


def jobs(servers: Servers) -> None:
    plain, rated, full = servers["plain"], servers["rated"], servers["full"]
    for body in ({"collection": ".."}, {"collection": "jobs", "documents": [{"text": "a"}], "model": "no-such-model"}, {"collection": 5}):
        plain.ask("POST", JOBS, {"documents": [{"text": "a"}], **body})
    done = run(plain, {"collection": "jobs", "documents": [{"id": "a", "text": "a"}]})
    for path in ("", "?limit=0", "?status=strange", f"/{done}", f"/{done}/documents", f"/{done}/documents?status=strange", f"/{done}/events"):
        plain.ask("GET", f"{JOBS}{path}")
    plain.ask("DELETE", f"{JOBS}/{done}")
    plain.ask("POST", f"{JOBS}/{done}/retry")
    # Another model than the collection's.
    plain.ask("POST", JOBS, {"collection": "jobs", "documents": [{"text": "a"}], "model": "text-embedding-3-small"})
    full.ask("POST", JOBS, {"collection": "jobs", "documents": [{"text": "a"}]})
    failed = run(plain, {"collection": "refused", "documents": [{"text": "a"}], "model": "refusing"})
    letters = json.loads(plain.get(f"{API}/dlq?stage=embedding"))["items"]
    for letter in letters[:1]:
        entry = {"stage": "embedding", "entry_id": letter["entry_id"]}
        plain.ask("POST", f"{API}/dlq/state", {**entry, "state": "ignored"})
        plain.ask("POST", f"{API}/dlq/requeue", entry)
        plain.ask("POST", f"{API}/dlq/state", {**entry, "state": "approved_for_requeue", "operator_note": "tried"})
        plain.ask("POST", f"{API}/dlq/requeue", entry)
        plain.ask("POST", f"{API}/dlq/requeue", entry)
    plain.ask("POST", f"{JOBS}/{failed}/retry")
    # A stage that is held keeps a job unfinished: it can be bumped, skipped, cancelled, and is one too many.
    plain.ask("POST", f"{API}/stage/control", {"stage": "all", "action": "pause"})
    waiting = [json.loads(plain.ask("POST", JOBS, {"collection": "jobs", "documents": [{"text": "b"}]})[1])["job_id"] for _ in range(2)]
    rated.ask("POST", JOBS, {"collection": "jobs", "documents": [{"text": "b"}]})
    rated.ask("POST", f"{JOBS}/{failed}/retry")
    plain.ask("POST", f"{API}/job/priority/bump", {"job_id": waiting[0], "priority": "high"})
    plain.ask("POST", f"{API}/job/priority/bump", {"job_id": waiting[0], "priority": "strange"})
    plain.ask("POST", f"{API}/job/skip", {"job_id": waiting[0]})
    plain.ask("POST", f"{API}/job/skip", {"job_id": ""})
    plain.ask("DELETE", f"{JOBS}/{waiting[1]}")
    plain.ask("POST", f"{API}/stage/control", {"stage": "all", "action": "resume"})


def run(server: Server, body: dict) -> str:
    """A job, to its end."""
    job = json.loads(server.ask("POST", JOBS, body)[1])["job_id"]
    until = time.monotonic() + 60
    while json.loads(server.get(f"{JOBS}/{job}"))["status"] in ("pending", "running"):
        assert time.monotonic() < until, f"job {job} does not end"
        time.sleep(0.1)
    return job


def operators(servers: Servers) -> None:
    plain = servers["plain"]
    for path in ("dlq?stage=strange", "dlq?count=many", "usage?from=never", "usage?user=ann", "job/skip/status", "ledger/status"):
        plain.ask("GET", f"{API}/{path}")
    for path, body in (
        ("stage/control", {"stage": "strange", "action": "pause"}),
        ("dlq/purge", {"stage": "strange"}),
        ("dlq/requeue", {**LETTER, "stage": "strange"}),
        ("dlq/requeue/bulk", {"stage": "strange", "entry_ids": ["a"]}),
        ("dlq/state", {**LETTER, "state": "strange"}),
    ):
        plain.ask("POST", f"{API}/{path}", body)
    servers["many"].ask("GET", f"{API}/usage?user=root", key=servers["many"].user)
    # A file that cannot be read cannot be taken over.
    (servers.scratch / "plain.yaml").write_text("limits: {nonsense: 1}")
    plain.ask("POST", f"{API}/config/reload")
