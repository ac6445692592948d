"""The engine beside ONNX Runtime (fp32 and int8) and, if asked, sentence-transformers: tokens a second, how near the
vectors are, whether they rank alike, how a long text uses two threads, memory, and the time to the first vector."""

import json
import os
import pathlib
import statistics
import subprocess

import numpy as np

from onnx_peer import Peer

PRECISIONS = ("f32", "bf16", "int8")
ROUNDS = int(os.environ.get("ROUNDS", "3"))


class Engine:
    def __init__(self, throughput: pathlib.Path, model: pathlib.Path, scratch: pathlib.Path):
        self.throughput, self.model, self.scratch = throughput, model, scratch

    def run(self, lines, threads=1, precision="f32", kernels="auto", batch=32):
        """The example's figures and the vectors of all lines."""
        source, out = self.scratch / "texts.txt", self.scratch / "vectors.f32"
        source.write_text("\n".join(lines) + "\n")
        command = [self.throughput, self.model, source, "--threads", str(threads), "--precision", precision,
                   "--kernels", kernels, "--batch", str(batch), "--json", "--out", out]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(result.stdout)
        return figures, np.fromfile(out, dtype="<f4").reshape(len(lines), -1)


def compare(engine: Engine, sets: dict, torch: bool) -> None:
    print("engine: tokens/s with tokenization (and without); ONNX Runtime pads batches of 32; ratios are to its fp32")
    print(f"{'texts':<20}{'threads':>8}  {'engine':<18}{'tokens/s':>10}{'without':>10}{'ratio':>8}{'cosine mean':>13}{'least':>10}")
    for threads in (1, 2):
        peers = {"ORT fp32": Peer(engine.model, threads), "ORT int8": Peer(engine.model, threads, int8=True)}
        if torch:
            from torch_peer import TorchPeer
            peers["sentence-transf."] = TorchPeer(engine.model, threads)
        for name, lines in sets.items():
            for order in ("sorted", "unsorted"):
                rows(engine, peers, f"{name}, {order}", sorted(lines, key=len) if order == "sorted" else lines, threads)
    print()


def rows(engine, peers, label, lines, threads):
    """Everybody in turn, three times, so that a drift of the machine hits all; medians."""
    ours = [(precision, "auto") for precision in PRECISIONS]
    if label == "mixed, sorted":
        ours += [(precision, "avx2") for precision in PRECISIONS]
    rates: dict = {}
    vectors: dict = {}
    by_length = label.endswith(", sorted")
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            total, computing, vectors[name] = peer.measure(lines, by_length)
            rates.setdefault(name, []).append((total, computing))
        for precision, kernels in ours:
            figures, vectors[precision, kernels] = engine.run(lines, threads, precision, kernels)
            rates.setdefault((precision, kernels), []).append(
                (figures["tokens_per_s_with_tokenization"], figures["tokens_per_s"]))
    reference = vectors["ORT fp32"]
    base = statistics.median(rate for rate, _ in rates["ORT fp32"])
    for who, measured in rates.items():
        total, computing = (statistics.median(column) for column in zip(*measured))
        cosines = (vectors[who] * reference).sum(1)
        name = who if isinstance(who, str) else f"{who[0]}{'' if who[1] == 'auto' else ', AVX2 only'}"
        print(f"{label:<20}{threads:>8}  {name:<18}{total:>10,.0f}{computing:>10,.0f}{total / base:>8.2f}"
              f"{cosines.mean():>13.6f}{cosines.min():>10.6f}", flush=True)


def peak(embeddery: pathlib.Path, model: pathlib.Path, environment: dict) -> None:
    for threads in (1, 2):
        command = [embeddery, "models", "bench", model]
        result = subprocess.run(command, capture_output=True, text=True, check=True,
                                env={**environment, "OMP_NUM_THREADS": str(threads)})
        print(result.stdout)


def ranking(engine: Engine, lines) -> None:
    """Texts that no choice was tuned on: each asks for its ten nearest among the others, in f32 and in fewer bits."""
    nearest = {}
    for precision in PRECISIONS:
        _, vectors = engine.run(lines, 2, precision)
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -1)
        nearest[precision] = np.argsort(-scores, axis=1)[:, :10]
    for precision in PRECISIONS[1:]:
        kept = [len(set(a) & set(b)) for a, b in zip(nearest["f32"], nearest[precision])]
        print(f"top-10 neighbours of {len(lines)} texts that {precision} shares with f32: {np.mean(kept) / 10:.1%}")
    print()


def long_text(engine: Engine, text: str) -> None:
    for precision in PRECISIONS:
        rates = [statistics.median(engine.run([text] * 40, threads, precision, batch=1)[0]["tokens_per_s"]
                                   for _ in range(ROUNDS)) for threads in (1, 2)]
        print(f"one text of 256 tokens, {precision}: two threads {rates[1] / rates[0]:.2f} x one")
    print()


def memory(engine: Engine, lines) -> None:
    for precision in PRECISIONS:
        figures, _ = engine.run(lines[:64], 2, precision)
        print(f"{precision}: packed weights {figures['weights_mb']:.0f} MB, resident {figures['rss_mb_at_the_end']:.0f} MB; "
              f"start to first vector {figures['first_vector_ms']:.0f} ms")
    print()
