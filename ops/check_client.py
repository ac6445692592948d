#!/usr/bin/env python3
"""A client is made from the OpenAPI document, every module of it can be imported, a program that uses it passes the type
checker, and gets a vector from the running server, a collection, and an error as documented.
Usage: check_client.py EMBEDDERY FAKE_UPSTREAM MODELS"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile

from api_servers import KEY, Servers

BIN = pathlib.Path(sys.executable).parent
PROGRAM = '''
import importlib, pkgutil, sys
import embeddery_client
from embeddery_client import AuthenticatedClient
from embeddery_client.api.collections import create_collection, search_collection
from embeddery_client.api.openai import create_embeddings_openai
from embeddery_client.models import CreateCollectionRequest, EmbeddingsRequest, EmbeddingsResponse, ErrorBody, SearchRequest

for module in pkgutil.walk_packages(embeddery_client.__path__, "embeddery_client."):
    importlib.import_module(module.name)
client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])

answer = create_embeddings_openai.sync(client=client, body=EmbeddingsRequest(input_="a parcel"))
assert isinstance(answer, EmbeddingsResponse), answer
vector = answer.data[0].embedding
assert isinstance(vector, list) and len(vector) == 8, vector

made = create_collection.sync_detailed(client=client, body=CreateCollectionRequest(name="made"))
assert made.status_code == 201, made
found = search_collection.sync_detailed("made", client=client, body=SearchRequest(query="a parcel"))
assert found.status_code == 200, found

refused = create_embeddings_openai.sync(client=client, body=EmbeddingsRequest(input_="a", model="no-such-model"))
assert isinstance(refused, ErrorBody) and refused.error.code == "model_not_found", refused
'''


def main() -> None:
    embeddery, upstream, models = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        scratch = pathlib.Path(directory)
        server = Servers(scratch, embeddery, upstream, models, stack)["plain"]
        (scratch / "openapi.json").write_text(server.get("/openapi.json"))
        (scratch / "program.py").write_text(PROGRAM)
        (scratch / "config.json").write_text('{"post_hooks": []}')
        generate = ["generate", "--path", "openapi.json", "--config", "config.json", "--meta", "none", "--output-path", "embeddery_client"]
        run(scratch, BIN / "openapi-python-client", *generate)
        # What the generator writes is not to every checker's taste; what matters is what a caller sees.
        run(scratch, BIN / "mypy", "--follow-imports=silent", "program.py")
        run(scratch, sys.executable, "program.py", server.url, KEY)
        endpoints = len(list((scratch / "embeddery_client/api").glob("*/[!_]*.py")))
    print(f"ok client: made from the document ({endpoints} endpoints), type-checked, got a vector")


def run(scratch: pathlib.Path, *command: object) -> None:
    done = subprocess.run(list(map(str, command)), cwd=scratch, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
