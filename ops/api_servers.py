"""Servers in every kind of trouble, each started when it is first asked for: what is away, full, slow, strict or lying."""

import contextlib
import http.client
import http.server
import json
import pathlib
import subprocess
import threading
import time
import urllib.error
import urllib.request

from check_monitoring import free_port, running

KEY = "a-key-for-this-check"
SECRET = "a-secret-of-32-characters-or-more"
NOWHERE = "http://127.0.0.1:9"
VENDOR = {"provider": "local_api", "dimensions": 8}


class Servers:
    """By name. They share one directory, unless what is away is the point."""

    def __init__(self, scratch: pathlib.Path, embeddery: pathlib.Path, upstream: pathlib.Path, models: pathlib.Path, stack) -> None:
        self.scratch, self.embeddery, self.models, self.stack = scratch, embeddery, models, stack
        self.vendor = stack.enter_context(running(scratch, upstream, "--length", "8")).url
        self.bad = stack.enter_context(trouble())
        self.running: dict[str, Server] = {}

    def __getitem__(self, name: str) -> "Server":
        if name not in self.running:
            self.running[name] = self.start(name)
        return self.running[name]

    def started(self) -> list["Server"]:
        return list(self.running.values())

    def start(self, name: str) -> "Server":
        variables, config = KINDS[name]
        config = {**self.common(), **config}
        if name in TROUBLED:
            config["models"]["vendor"]["api_url"] = f"{self.bad}/{TROUBLED[name]}/v1/embeddings"
        broken = self.scratch / "models/org/broken"
        broken.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (broken / file).write_text("{}")
        (self.scratch / f"{name}.yaml").write_text(json.dumps(config))
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.scratch),
            "SINGLE_USER_API_KEY": KEY,
            "HF_HUB_OFFLINE": "1",
            "LOG_LEVEL": "ERROR",
            "EMBEDDINGS_MODEL_STORAGE_DIR": str(self.models),
            "USER_DB_BASE_DIR": str(self.scratch / "users"),
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": f"{self.vendor}/v1",
            **{key: value.format(bad=self.bad, name=name, scratch=self.scratch) for key, value in variables.items()},
        }
        command = [self.embeddery, "serve", "--listen", "127.0.0.1:0", "--config", f"{name}.yaml"]
        server = Server(self.stack.enter_context(running(self.scratch, *command, environment=environment)).url)
        if "AUTH_MODE" in variables:
            def token(*arguments: str) -> str:
                issue = [self.embeddery, "token", "issue", "--expires", "1h", "--user", *arguments]
                return subprocess.run(issue, cwd=self.scratch, env=environment, text=True, capture_output=True, check=True).stdout.strip()

            server.admin, server.user = token("root", "--role", "admin"), token("ann")
        return server

    def common(self) -> dict:
        return {
            "models": {
                "vendor": {**VENDOR, "model_name_or_path": "fake", "api_url": f"{self.vendor}/v1/embeddings"},
                "liar": {**VENDOR, "model_name_or_path": "liar", "api_url": f"{self.bad}/liar/v1/embeddings"},
                "refusing": {**VENDOR, "model_name_or_path": "refusing", "api_url": f"{self.bad}/refusing/v1/embeddings"},
                "slow": {**VENDOR, "model_name_or_path": "slow", "api_url": f"{self.bad}/slow/v1/embeddings"},
            },
            "default_model_id": "vendor",
            "retry": {"max_retries": 0},
            "breaker": {"failures": 1000},
            "limits": {"failed_logins_per_minute": 0},
        }


# What differs from a server that has all it needs: variables, configuration.
KINDS = {
    # Whatever is asked of it, nothing is missing that it would need.
    "whole": ({"USER_DB_BASE_DIR": "{scratch}/whole"}, {"policy": {"allowed_models": ["vendor", "fake"], "allowed_providers": ["local_api"]}}),
    "plain": ({}, {"policy": {"allowed_providers": ["openai", "local_api", "huggingface", "cohere", "google"]}}),
    "many": (
        {"AUTH_MODE": "multi_user", "JWT_SECRET_KEY": SECRET},
        {"server": {"metrics_auth": True}},
    ),
    "guessed": ({}, {"limits": {"failed_logins_per_minute": 1}}),
    "rated": ({}, {"limits": {"enabled": True, "requests_per_second": 0.001, "burst": 1}, "quotas": {"concurrent_jobs": 1}}),
    "tight": ({}, {"server": {"body_limit_bytes": 1000, "body_timeout_seconds": 1}}),
    "hasty": ({}, {"server": {"request_timeout_seconds": 1}}),
    "lying": ({}, {}),
    "strict": ({}, {"policy": {"allowed_providers": ["openai"]}}),
    "full": ({}, {"collections": {"min_free_bytes": 1 << 60}}),
    "away": (
        {
            "REDIS_URL": "redis://127.0.0.1:9",
            "DATABASE_URL": "postgres://nobody:nothing@127.0.0.1:9/nowhere",
            "USER_DB_BASE_DIR": "{scratch}/away",
        },
        {"cache": {"second_level": "redis"}},
    ),
    "hub": ({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "{bad}/hub", "USER_DB_BASE_DIR": "{scratch}/hub", "EMBEDDINGS_MODEL_STORAGE_DIR": "{scratch}/models"}, {"default_model_id": "org/absent"}),
}


# Where the vendor of all collections is no vendor.
TROUBLED = {"hasty": "slow", "lying": "liar"}


class Server:
    def __init__(self, url: str) -> None:
        self.url, self.admin, self.user = url, KEY, KEY

    def get(self, path: str, key: str = KEY) -> str:
        return self.ask("GET", path, key=key)[1]

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = KEY, kind: str = "application/json") -> tuple[int, str]:
        """Status and text. A body that is no text is sent as JSON; of events only the head is waited for."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind} if data is not None else {}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                events = answer.headers.get_content_type() == "text/event-stream"
                return answer.status, "" if events else answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def dawdle(self, method: str, path: str, kind: str) -> None:
        """Announces a body and does not send it."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        connection.putrequest(method, path)
        for name, value in {"Authorization": f"Bearer {KEY}", "Content-Type": kind, "Content-Length": "100"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.getresponse().read()
        connection.close()


@contextlib.contextmanager
def trouble():
    """A vendor and a hub: /liar answers nonsense, /refusing calls it a bad request, /slow answers late, /hub what no hub would say."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            if not self.path.startswith("/slow"):
                return self.do_GET()
            time.sleep(1.5)
            vectors = [{"index": index, "embedding": [1.0] + [0.0] * 7} for index in range(len(asked["input"]))]
            self.say(200, json.dumps({"data": vectors, "usage": {"prompt_tokens": 1, "total_tokens": 1}}).encode())

        def do_GET(self) -> None:
            self.say(400 if self.path.startswith("/refusing") else 200, b"nonsense")

        def say(self, status: int, body: bytes) -> None:
            # Who asks may have gone.
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
