#!/usr/bin/env python3
"""The OpenAI client with Embeddery as its server: prints the similarity of each pair of texts."""

import os
import pathlib

import numpy
import openai

url = os.environ.get("EMBEDDERY_URL", "http://127.0.0.1:8000")
key = os.environ.get("EMBEDDERY_API_KEY") or pathlib.Path("Databases/user_databases/.embeddery/api-key").read_text()
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key.strip())

texts = ["The parcel never arrived.", "My delivery got lost.", "Sourdough bread needs two days of rest."]
response = client.embeddings.create(model="sentence-transformers/all-MiniLM-L6-v2", input=texts)
vectors = numpy.array([item.embedding for item in response.data])

# The vectors have unit length, so the dot product is the cosine.
similarity = vectors @ vectors.T
for row, first in enumerate(texts):
    for column in range(row):
        print(f"{similarity[row, column]:.3f}  {first}  |  {texts[column]}")
assert similarity[1, 0] > similarity[2, 0], "the related texts are nearer"
