#!/usr/bin/env python3
"""Writes graphs of a BERT model as exporters do, from its safetensors: make_onnx_models.py MODEL_DIRECTORY OUT.
Three in OUT/onnx: model.onnx (input_ids, attention_mask, token_type_ids -> last_hidden_state), model_int8.onnx (the same,
quantised), model_sentence.onnx (int32 inputs, no token types -> sentence_embedding). What stands around them is copied."""

import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

AROUND = ["config.json", "modules.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json",
          "config_sentence_transformers.json", "1_Pooling/config.json"]


class Graph:
    """A graph of plain operators; names are given as they come."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, *inputs, to=None, **attributes) -> str:
        name = to or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def ints(self, *numbers) -> str:
        return self.const(np.array(numbers, dtype=np.int64))


def encoder(graph, config, weights, types, to) -> str:
    """BERT's layers; names its last output `to`."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width, epsilon = hidden // heads, config["layer_norm_eps"]
    op, const = graph.op, graph.const

    def norm(name, x, to=None):
        return op("LayerNormalization", x, const(weights[f"{name}.weight"]), const(weights[f"{name}.bias"]),
                  axis=-1, epsilon=epsilon, to=to)

    def dense(name, x):
        return op("Add", op("MatMul", x, const(weights[f"{name}.weight"].T)), const(weights[f"{name}.bias"]))

    def split(x):
        return op("Transpose", op("Reshape", x, graph.ints(0, 0, heads, width)), perm=[0, 2, 1, 3])

    words = op("Gather", const(weights["embeddings.word_embeddings.weight"]), "input_ids")
    length = op("Slice", op("Shape", "input_ids"), graph.ints(1), graph.ints(2))
    places = op("Slice", const(weights["embeddings.position_embeddings.weight"]), graph.ints(0), length)
    kinds = weights["embeddings.token_type_embeddings.weight"]
    kind = op("Gather", const(kinds), types) if types else const(kinds[0])
    x = norm("embeddings.LayerNorm", op("Add", op("Add", words, kind), places))
    mask = op("Unsqueeze", op("CastLike", "attention_mask", const(np.float32(0))), graph.ints(1, 2))
    bias = op("Mul", op("Sub", const(np.float32(1)), mask), const(np.float32(-3e38)))
    for layer in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{layer}"
        q, k, v = (split(dense(f"{p}.attention.self.{part}", x)) for part in ("query", "key", "value"))
        scores = op("Mul", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), const(np.float32(width**-0.5)))
        seen = op("MatMul", op("Softmax", op("Add", scores, bias), axis=-1), v)
        joined = op("Reshape", op("Transpose", seen, perm=[0, 2, 1, 3]), graph.ints(0, 0, hidden))
        x = norm(f"{p}.attention.output.LayerNorm", op("Add", dense(f"{p}.attention.output.dense", joined), x))
        wide = dense(f"{p}.intermediate.dense", x)
        erf = op("Erf", op("Div", wide, const(np.float32(2**0.5))))
        gelu = op("Mul", op("Mul", wide, op("Add", erf, const(np.float32(1)))), const(np.float32(0.5)))
        last = layer + 1 == config["num_hidden_layers"]
        x = norm(f"{p}.output.LayerNorm", op("Add", dense(f"{p}.output.dense", gelu), x), to=to if last else None)
    return x


def model(graph, inputs, output, shape, integer) -> onnx.ModelProto:
    made = helper.make_graph(
        graph.nodes, "bert",
        [helper.make_tensor_value_info(name, integer, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        graph.constants)
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def main() -> None:
    source, out = map(pathlib.Path, sys.argv[1:3])
    wanted = pathlib.Path(__file__).read_text()
    stamp = out / "made-by.txt"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    config, weights = json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors")
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    hidden = config["hidden_size"]

    tokens = Graph()
    encoder(tokens, config, weights, "token_type_ids", "last_hidden_state")
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    shape = ["batch", "sequence", hidden]
    onnx.save(model(tokens, inputs, "last_hidden_state", shape, TensorProto.INT64), out / "onnx/model.onnx")
    with tempfile.TemporaryDirectory() as directory:
        quantised = pathlib.Path(directory) / "int8.onnx"
        quantize_dynamic(out / "onnx/model.onnx", quantised, per_channel=True, weight_type=QuantType.QInt8,
                         extra_options={"DefaultTensorType": TensorProto.FLOAT})
        shutil.copy(quantised, out / "onnx/model_int8.onnx")

    sentence = Graph()
    op, const = sentence.op, sentence.const
    x = encoder(sentence, config, weights, None, "hidden")
    mask = op("Unsqueeze", op("CastLike", "attention_mask", const(np.float32(0))), sentence.ints(2))
    total = op("ReduceSum", op("Mul", x, mask), sentence.ints(1), keepdims=0)
    op("Div", total, op("ReduceSum", mask, sentence.ints(1), keepdims=0), to="sentence_embedding")
    made = model(sentence, ["input_ids", "attention_mask"], "sentence_embedding", ["batch", hidden], TensorProto.INT32)
    onnx.save(made, out / "onnx/model_sentence.onnx")

    for name in AROUND:
        if (source / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, out / name)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
