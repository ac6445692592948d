#!/usr/bin/env python3
"""Makes the golden vectors that the engine's tests are judged by, with the reference implementation in fp32.

    make golden      (or: python tools/golden/make_golden.py [MODEL_DIR])

Writes into crates/engine/tests/golden:

    minilm.json           vectors of the real all-MiniLM-L6-v2, by sentence-transformers, of unit length
    tiny/config.json      a BERT of awkward sizes (no dimension is a multiple of a kernel's tile)
    tiny/tokenizer.json   its tokenizer, with the trap that real ones have: truncation and padding to 8 tokens
    tiny.json             its vectors, CLS and mean pooling, by transformers, as they come
    mpnet/config.json,    an MPNet of such sizes with the same tokenizer, and its vectors; its texts are long enough
    mpnet.json            for every bucket of its relative positions

The tiny models' weights are not kept: `weight` below says what they are, and tests/support/tiny.rs says the same
in Rust. Vectors are base64 of little-endian float32.
"""

import base64
import json
import pathlib
import sys

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/engine/tests/golden"
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

TINY_TEXTS = ["a", "hello world", "the cat sat on the mat.", "zebra! quiz? unknown ☃ sign", "a b c d e f g h i j k l m n o p",
              "the " * 60, ""]
MPNET_TEXTS = [*TINY_TEXTS, " ".join("abcdefghijklmnopqrstuvwxyz" * 5)]


def base64_of(vector) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def write(name: str, content) -> None:
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=True, indent=1) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


def made_with() -> str:
    modules = (sentence_transformers, transformers, tokenizers, torch, np)
    return ", ".join(f"{module.__name__} {module.__version__}" for module in modules)


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


def weight(name: str, shape) -> torch.Tensor:
    """Numbers in [-1/4, 1/4) from a linear congruential generator seeded with the name's FNV-1a hash; a
    LayerNorm's weight lies around 1. Every step is exact in float32, so any language gets the same bits."""
    state = 0x811C9DC5
    for byte in name.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    values = []
    for _ in range(int(np.prod(shape))):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values.append(((state >> 8) / 2**24 - 0.5) * 0.5)
    offset = 1.0 if name.endswith("LayerNorm.weight") else 0.0
    return torch.from_numpy(np.array(values, dtype=np.float32) + np.float32(offset)).reshape(tuple(shape))


def tiny_tokenizer() -> tokenizers.Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters),
             "the", "cat", "hello", "world", "##at", ".", "!", "?"]
    tokenizer = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))])
    tokenizer.add_special_tokens(words[:5])
    return tokenizer


def tiny() -> dict:
    tokenizer = tiny_tokenizer()
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=40, num_hidden_layers=2, num_attention_heads=5,
        intermediate_size=100, max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12,
        attn_implementation="eager")
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    golden = vectors_of(model, tokenizer, TINY_TEXTS, first_position=0)
    write("tiny/config.json", kept(config, "type_vocab_size"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    write("tiny/tokenizer.json", json.loads(tokenizer.to_str()))
    return golden


def mpnet() -> dict:
    tokenizer = tiny_tokenizer()
    config = transformers.MPNetConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=40, num_hidden_layers=2, num_attention_heads=5,
        intermediate_size=100, max_position_embeddings=134, layer_norm_eps=1e-5, relative_attention_num_buckets=32,
        attn_implementation="eager")
    model = transformers.MPNetModel(config, add_pooling_layer=False).eval()
    write("mpnet/config.json", kept(config, "relative_attention_num_buckets"))
    # Positions begin behind the padding token's, whose id is 1.
    return vectors_of(model, tokenizer, MPNET_TEXTS, first_position=2)


def vectors_of(model, tokenizer, texts, first_position) -> dict:
    """The vectors of a model with our weights, and the shapes of these."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(name, parameter.shape))
    limit = model.config.max_position_embeddings - first_position
    found = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > limit:
            ids = ids[:limit - 1] + ids[-1:]
        positions = torch.arange(first_position, first_position + len(ids)).unsqueeze(0)
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), position_ids=positions).last_hidden_state[0]
        found.append({"text": text, "ids": ids, "cls": base64_of(hidden[0]), "mean": base64_of(hidden.mean(0))})
    names = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return {"made_with": made_with(), "tensors": names, "texts": found}


def kept(config, *own) -> dict:
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
            "max_position_embeddings", "layer_norm_eps", "hidden_act", *own)
    return {"model_type": config.model_type, **{key: getattr(config, key) for key in keys}}


if __name__ == "__main__":
    write("minilm.json", minilm(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else MINILM))
    write("tiny.json", tiny())
    write("mpnet.json", mpnet())
