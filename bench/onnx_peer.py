"""The peer: ONNX Runtime, fp32 and int8 (dynamic, per channel), on the same model and texts. The graph is built here from the model's own
weights, with the fused operators that ONNX Runtime offers on the CPU, so that no exporter is needed; its
answers are compared with ours, which proves both."""

import json
import pathlib
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file
from tokenizers import Tokenizer

BATCH = 32


def build(model_dir: pathlib.Path) -> bytes:
    """A BERT encoder (ids, mask -> token vectors) with LayerNormalization, fused attention and bias-GELU."""
    config = json.loads((model_dir / "config.json").read_text())
    weights = load_file(model_dir / "model.safetensors")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nodes, initializers = [], []

    def const(name, array):
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(kind, inputs, output, domain="", **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def norm(prefix, source, residual, output):
        gamma, beta = const(f"{output}.g", weights[f"{prefix}.weight"]), const(f"{output}.b", weights[f"{prefix}.bias"])
        return op("SkipLayerNormalization", [source, residual, gamma, beta], output, "com.microsoft",
                  epsilon=config["layer_norm_eps"])

    def dense(prefix, source, output):
        matrix = const(f"{output}.w", weights[f"{prefix}.weight"].T)
        return op("Add", [op("MatMul", [source, matrix], f"{output}.m"), const(f"{output}.bias", weights[f"{prefix}.bias"])], output)

    words = op("Gather", [const("words", weights["embeddings.word_embeddings.weight"]), "ids"], "x.words")
    length = op("Shape", ["ids"], "ids.shape")
    width = op("Slice", [length, const("one", np.array([1])), const("two", np.array([2]))], "ids.width")
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    positions = op("Slice", [const("places", places), const("zero", np.array([0])), width], "x.places")
    summed = op("Add", [words, positions], "x.sum")
    x = op("LayerNormalization", [summed, const("e.g", weights["embeddings.LayerNorm.weight"]),
                                  const("e.b", weights["embeddings.LayerNorm.bias"])], "x.0",
           axis=-1, epsilon=config["layer_norm_eps"])
    for layer in range(config["num_hidden_layers"]):
        p, n = f"encoder.layer.{layer}", f"l{layer}"
        parts = [f"{p}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = const(f"{n}.qkv", np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1))
        bias = const(f"{n}.qkv.b", np.concatenate([weights[f"{part}.bias"] for part in parts]))
        attended = op("Attention", [x, qkv, bias, "mask"], f"{n}.a", "com.microsoft", num_heads=heads)
        x1 = norm(f"{p}.attention.output.LayerNorm", dense(f"{p}.attention.output.dense", attended, f"{n}.o"), x, f"{n}.x1")
        wide = op("MatMul", [x1, const(f"{n}.f1", weights[f"{p}.intermediate.dense.weight"].T)], f"{n}.wide")
        active = op("BiasGelu", [wide, const(f"{n}.f1.b", weights[f"{p}.intermediate.dense.bias"])], f"{n}.act", "com.microsoft")
        x = norm(f"{p}.output.LayerNorm", dense(f"{p}.output.dense", active, f"{n}.f2"), x1, f"x.{layer + 1}")
    graph = helper.make_graph(
        nodes, "bert",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "s"]),
         helper.make_tensor_value_info("mask", TensorProto.INT32, ["b", "s"])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["b", "s", hidden])],
        initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
                              ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def quantised(graph: bytes) -> bytes:
    """The same graph with eight-bit weights per channel and activations quantised as they come."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = pathlib.Path(directory) / "fp32.onnx", pathlib.Path(directory) / "int8.onnx"
        source.write_bytes(graph)
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8,
                         extra_options={"DefaultTensorType": TensorProto.FLOAT})
        return target.read_bytes()


class Peer:
    """Sentence vectors by ONNX Runtime: padded batches, mean over real tokens, unit length."""

    def __init__(self, model_dir: pathlib.Path, threads: int, max_tokens: int = 256, int8: bool = False):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        began = time.perf_counter()
        graph = quantised(build(model_dir)) if int8 else build(model_dir)
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.load_seconds = time.perf_counter() - began
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()

    def measure(self, lines, by_length):
        """Tokens a second with tokenization and without, and the vectors."""
        began = time.perf_counter()
        sequences = self.tokenize(lines)
        tokenized = time.perf_counter()
        vectors = self.encode(sequences, by_length=by_length)
        ended, count = time.perf_counter(), sum(map(len, sequences))
        return count / (ended - began), count / (ended - tokenized), vectors

    def tokenize(self, texts):
        return [np.array(encoding.ids, dtype=np.int64) for encoding in self.tokenizer.encode_batch(texts)]

    def encode(self, sequences, batch=BATCH, by_length=True):
        """[texts x dimensions]; `by_length` groups similar lengths, which is what helps a padding engine most."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i])) if by_length else range(len(sequences))
        order, vectors = list(order), [None] * len(sequences)
        for start in range(0, len(order), batch):
            part = order[start:start + batch]
            width = max(len(sequences[i]) for i in part)
            ids, mask = np.zeros((len(part), width), np.int64), np.zeros((len(part), width), np.int32)
            for row, i in enumerate(part):
                ids[row, :len(sequences[i])], mask[row, :len(sequences[i])] = sequences[i], 1
            (tokens,) = self.session.run(None, {"ids": ids, "mask": mask})
            weights = mask[:, :, None].astype(np.float32)
            pooled = (tokens * weights).sum(1) / weights.sum(1)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for row, i in enumerate(part):
                vectors[i] = pooled[row]
        return np.array(vectors)
