"""What the golden files have in common: where they lie, how numbers are written, the tiny models' weights."""

import base64
import json
import pathlib

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/engine/tests/golden"


def base64_of(vector) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def write(name: str, content) -> None:
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=True, indent=1) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


def made_with(*others) -> str:
    modules = (sentence_transformers, transformers, tokenizers, torch, np, *others)
    return ", ".join(f"{module.__name__} {module.__version__}" for module in modules)


def weight(name: str, shape) -> torch.Tensor:
    """Numbers in [-1/4, 1/4) from a linear congruential generator seeded with the name's FNV-1a hash; a
    norm's weight lies around 1. Every step is exact in float32, so any language gets the same bits."""
    state = 0x811C9DC5
    for byte in name.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    values = []
    for _ in range(int(np.prod(shape))):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values.append(((state >> 8) / 2**24 - 0.5) * 0.5)
    offset = 1.0 if "norm" in name.lower() and name.endswith(".weight") else 0.0
    return torch.from_numpy(np.array(values, dtype=np.float32) + np.float32(offset)).reshape(tuple(shape))
