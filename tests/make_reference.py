#!/usr/bin/env python3
"""Makes tests/reference.json: vectors of the reference implementation (sentence-transformers, fp32) for a
few texts, by which the API's answers are judged. Run by hand in the environment of `make golden`."""

import json
import pathlib
import sys

import sentence_transformers
import torch
import transformers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Füchse springen über faule Hunde — 狐狸跳过懒狗 🦊",
    "word " * 400,
]

model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(TEXTS, normalize_embeddings=True)
reference = {
    "made_with": f"sentence-transformers {sentence_transformers.__version__}, "
    f"transformers {transformers.__version__}, torch {torch.__version__}",
    "texts": [
        {"text": text, "tokens": len(model.tokenizer(text, truncation=True, max_length=256)["input_ids"]), "vector": [round(float(x), 7) for x in vector]}
        for text, vector in zip(TEXTS, vectors)
    ],
}
path = pathlib.Path(__file__).with_name("reference.json")
path.write_text(json.dumps(reference, ensure_ascii=False, indent=0) + "\n")
print(reference["made_with"], [t["tokens"] for t in reference["texts"]])
