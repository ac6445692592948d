"""A second peer, with PEERS=torch: sentence-transformers on PyTorch, fp32."""

import time

import numpy as np
import sentence_transformers
import torch


class TorchPeer:
    def __init__(self, model_dir, threads: int):
        torch.set_num_threads(threads)
        self.model = sentence_transformers.SentenceTransformer(str(model_dir), device="cpu",
                                                               model_kwargs={"dtype": torch.float32})

    def measure(self, lines, by_length):
        """Tokens a second with tokenization, the same again (it does not tell them apart), and the vectors."""
        count = sum(len(ids) for ids in self.model.tokenizer(lines, truncation=True, max_length=256)["input_ids"])
        began = time.perf_counter()
        vectors = self.model.encode(lines, batch_size=32, normalize_embeddings=True)
        rate = count / (time.perf_counter() - began)
        return rate, rate, np.asarray(vectors, dtype=np.float32)
