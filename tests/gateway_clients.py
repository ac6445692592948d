#!/usr/bin/env python3
"""Real clients against a running gateway with a stand-in for OpenAI and Voyage behind it:
gateway_clients.py URL KEY. LangChain with its defaults (it sends token ids), LiteLLM as a client, and OpenAI's
own. Exits 0 when every answer is right; an assertion says what was not. Which texts reached the vendors, the
test that runs this knows."""

import os
import pathlib
import sys

import numpy

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no look at the internet

import langchain_openai
import litellm
import openai

# LangChain's tokenizer would fetch its vocabulary; LiteLLM brings it along.
os.environ["TIKTOKEN_CACHE_DIR"] = str(pathlib.Path(litellm.__file__).parent / "litellm_core_utils/tokenizers")

url, key = sys.argv[1:3]
base = f"{url}/v1"
TEXTS = ["the first text", "the second text, somewhat longer", "der dritte Text"]


def unit(vectors) -> numpy.ndarray:
    vectors = numpy.array(vectors, dtype=numpy.float32)
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return vectors


client = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
small = "text-embedding-3-small"
by_base64 = unit([d.embedding for d in client.embeddings.create(model=small, input=TEXTS).data])
by_float = unit([d.embedding for d in client.embeddings.create(model=small, input=TEXTS, encoding_format="float").data])
assert numpy.allclose(by_base64, by_float, atol=1e-7) and by_float.shape == (3, 1536)
short = client.embeddings.create(model=small, input=TEXTS, dimensions=256)
assert len(short.data[0].embedding) == 256

# Through LiteLLM as a client of an OpenAI-like server.
answer = litellm.embedding(model=f"openai/{small}", input=TEXTS, api_base=base, api_key=key, encoding_format="float")
assert numpy.allclose(unit([d["embedding"] for d in answer.data]), by_float, atol=1e-7)

# LangChain's defaults: token ids of cl100k_base, whatever the model. A model of another family gets the texts.
voyage = unit([d.embedding for d in client.embeddings.create(model="voyage-4", input=TEXTS, encoding_format="float").data])
chain = langchain_openai.OpenAIEmbeddings(model="voyage-4", base_url=base, api_key=key)
assert chain.check_embedding_ctx_length, "LangChain sends token ids by default"
assert numpy.allclose(unit(chain.embed_documents(TEXTS)), voyage, atol=1e-6)
assert numpy.allclose(unit([chain.embed_query(TEXTS[0])]), voyage[:1], atol=1e-6)
own = langchain_openai.OpenAIEmbeddings(model=small, base_url=base, api_key=key)
assert unit(own.embed_documents(TEXTS)).shape == (3, 1536)
print(f"openai {openai.__version__}, litellm, langchain-openai: all right")
