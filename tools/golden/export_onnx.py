#!/usr/bin/env python3
"""A model's graph as PyTorch's own exporters write it, to try the `onnx` provider on: export_onnx.py MODEL_DIRECTORY OUT [--dynamo].
OUT is a model directory with onnx/model.onnx; with --dynamo its weights lie beside it. `make golden` makes the environment."""

import argparse
import pathlib
import shutil

import torch
from transformers import AutoModel, AutoTokenizer

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(**dict(zip(INPUTS, inputs))).last_hidden_state


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=pathlib.Path)
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--dynamo", action="store_true", help="the newer of the two exporters")
    options = arguments.parse_args()
    ignored = shutil.ignore_patterns("*.safetensors", "*.bin", "onnx")
    shutil.copytree(options.model, options.out, ignore=ignored, dirs_exist_ok=True)
    (options.out / "onnx").mkdir(exist_ok=True)
    model = AutoModel.from_pretrained(options.model, attn_implementation="eager").eval()
    texts = AutoTokenizer.from_pretrained(options.model)(["a fox and a dog", "x"], return_tensors="pt", padding=True)
    axes = {name: {0: "batch", 1: "tokens"} for name in [*INPUTS, "last_hidden_state"]}
    torch.onnx.export(
        Encoder(model), tuple(texts[name] for name in INPUTS), str(options.out / "onnx/model.onnx"), dynamo=options.dynamo,
        input_names=INPUTS, output_names=["last_hidden_state"], dynamic_axes=axes, opset_version=17,
    )


if __name__ == "__main__":
    main()
