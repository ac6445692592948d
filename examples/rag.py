#!/usr/bin/env python3
"""Retrieval for a prompt with the standard library only: chunks a text, stores it, and prints a prompt with the
passages that fit the question best."""

import json
import os
import pathlib
import urllib.request

URL = os.environ.get("EMBEDDERY_URL", "http://127.0.0.1:8000") + "/api/v1/embeddings"
KEY = os.environ.get("EMBEDDERY_API_KEY") or pathlib.Path("Databases/user_databases/.embeddery/api-key").read_text()
NAME = f"example-rag-{os.getpid()}"

MANUAL = """# Coffee machine

## Cleaning
Unplug the machine first. Rinse the filter with warm water and let it dry for an hour.

## Descaling
Fill the tank with water and citric acid. Start the descaling program. It takes twenty minutes.

## Warranty
The warranty is two years. Keep the receipt."""


def call(method, path, body=None):
    request = urllib.request.Request(
        URL + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-API-KEY": KEY.strip(), "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        content = response.read()
        return json.loads(content) if content else None


call("POST", "/collections", {"name": NAME})
try:
    call(
        "POST",
        f"/collections/{NAME}/documents",
        {
            "documents": [{"id": "manual", "text": MANUAL}],
            "chunking": {"method": "markdown", "size": 40, "overlap": 0, "unit": "words"},
        },
    )
    question = "How long does removing limescale take?"
    hits = call("POST", f"/collections/{NAME}/search", {"query": question, "top_k": 2, "with_text": True})["results"]
    context = "\n\n".join(f"[{hit['document_id']}] {hit['text']}" for hit in hits)
    print(f"Answer with the context only.\n\nContext:\n{context}\n\nQuestion: {question}")
    assert "twenty minutes" in context, context
finally:
    call("DELETE", f"/collections/{NAME}")
