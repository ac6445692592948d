#!/usr/bin/env python3
"""Makes the golden vectors that the engine's tests are judged by, with the reference implementation in fp32.

    make golden      (or: python tools/golden/make_golden.py [MODEL_DIR])

Writes into crates/engine/tests/golden:

    minilm.json           vectors of the real all-MiniLM-L6-v2, by sentence-transformers, of unit length
    <name>/config.json    for each architecture a tiny model of awkward sizes (tiny_models.py),
    <name>/tokenizer.json its tokenizer (tiny_tokenizers.py) where that is not tiny's,
    <name>.json           and its vectors, CLS, mean and last token, as they come; `tiny` is BERT
    model2vec*.json       vectors of model2vec's static models

jina_bert is made by candle-transformers: `cargo run --manifest-path tools/golden/jina_oracle/Cargo.toml`.

The tiny models' weights are not kept: `weight` in common.py says what they are, and tests/support/tiny.rs says the same
in Rust. Vectors are base64 of little-endian float32.
"""

import pathlib
import sys

import sentence_transformers
import tokenizers
import torch

import tiny_models
from common import ROOT, base64_of, made_with, write

MINILM = ROOT / "models/embedding_models_data/sentence-transformers/all-MiniLM-L6-v2"

TEXTS = [
    "a",
    "Hello",
    ".",
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France?",
    "SHOUTING and whispering, MiXeD cAsE",
    "Crème brûlée, naïve façade, Ångström, Łódź, İstanbul, ß",
    "e\u0301 decomposed and \u00e9 composed",
    "Füchse springen über faule Hunde",
    "狐狸跳过懒狗",
    "日本語のテキストと English の混在",
    "안녕하세요 세계",
    "Привет, мир! Как дела?",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🦊 jumps over 🐕\u200d🦺 👩🏽\u200d🚀!",
    "fn main() { println!(\"{}\", a[i] << 2 & 0xff); } // code",
    "SELECT * FROM t WHERE x >= 3.14159e-10 AND y != 'z';",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org",
    "tabs\tand\nnew lines\r\n  and   many    spaces  ",
    "control\u0000characters\u0007 zero\u200bwidth soft\u00adhyphen \ufffd",
    "pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 120,
    "[CLS] special [SEP] tokens [MASK] in [UNK] text [PAD]",
    "!?;:,.-–—…«»“”‘’()[]{}<>/\\|@#$%^&*_+=~`",
    " ".join(f"Sentence number {i} of a rather long text about nothing at all." for i in range(12)),
    " ".join(f"word{i}" for i in range(400)),
    "长" * 300,
]


def minilm(directory: pathlib.Path) -> dict:
    model = sentence_transformers.SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": torch.float32})
    assert next(model.parameters()).dtype == torch.float32
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = []
    for text in TEXTS:
        # One at a time, so that no padding is in play.
        vector = model.encode(text, normalize_embeddings=True)
        count = len(tokenizer.encode(text).ids)
        texts.append({"text": text, "tokens": count, "vector": base64_of(vector)})
    return {"made_with": made_with(), "limit": model.max_seq_length, "texts": texts}


if __name__ == "__main__":
    write("minilm.json", minilm(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else MINILM))
    tiny_models.make_all()
    tiny_models.make_static()
