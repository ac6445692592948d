#!/usr/bin/env python3
"""The official OpenAI client against a running server: openai_sdk.py URL KEY.
Exits 0 when every answer is right; an assertion says what was not."""

import json
import pathlib
import sys

import numpy
import openai

url, key = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
reference = json.loads(pathlib.Path(__file__).with_name("reference.json").read_text())["texts"]
texts = [entry["text"] for entry in reference]
wanted = numpy.array([entry["vector"] for entry in reference], dtype=numpy.float32)
MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# The SDK asks for base64 unless told otherwise, and decodes it.
by_base64 = client.embeddings.create(model=MODEL, input=texts)
by_float = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
for answer in (by_base64, by_float):
    vectors = numpy.array([item.embedding for item in answer.data], dtype=numpy.float32)
    assert vectors.shape == (len(texts), 384), vectors.shape
    worst = float(numpy.abs(vectors - wanted).max())
    assert worst < 1e-4, f"component off by {worst}"
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert answer.usage.prompt_tokens == sum(entry["tokens"] for entry in reference), answer.usage
    assert answer.model == MODEL and [item.index for item in answer.data] == [0, 1, 2]
same = [a.embedding == b.embedding for a, b in zip(by_base64.data, by_float.data)]
assert numpy.allclose([d.embedding for d in by_base64.data], [d.embedding for d in by_float.data], atol=1e-7), same

single = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float").data[0].embedding
assert numpy.array_equal(single, by_float.data[0].embedding), "a text's vector depends on its batch mates"

assert any(model.id == MODEL for model in client.models.list())


def expect(error, call):
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was due")


raised = expect(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input=[]))
assert raised.type == "invalid_request_error" and raised.param == "input", raised
raised = expect(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input="x", dimensions=7))
assert "384" in str(raised)
raised = expect(openai.NotFoundError, lambda: client.embeddings.create(model="nonsense", input="x"))
assert raised.code == "model_not_found"
stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong-key-wrong-key", max_retries=0)
raised = expect(openai.AuthenticationError, lambda: stranger.embeddings.create(model=MODEL, input="x"))
assert raised.code == "invalid_api_key"
print(f"openai {openai.__version__}: all right")
