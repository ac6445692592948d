"""A model of awkward sizes for each architecture (no dimension is a multiple of a kernel's tile), and its vectors by
the reference: transformers, in fp32, a text at a time. Weights are not kept: `common.weight` says what they are."""

import json

import model2vec
import numpy as np
import torch
import transformers

import tiny_tokenizers
from common import base64_of, made_with, weight, write

TEXTS = ["a", "hello world", "the cat sat on the mat.", "zebra! quiz? unknown \u2603 sign", "a b c d e f g h i j k l m n o p",
         "the " * 60, ""]
# Long enough for every bucket of MPNet's relative positions.
ALPHABETS = " ".join("abcdefghijklmnopqrstuvwxyz" * 5)

SIZES = dict(hidden_size=40, num_hidden_layers=2, num_attention_heads=5, intermediate_size=100)
KEPT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
        "max_position_embeddings", "layer_norm_eps", "hidden_act")
DISTILBERT_KEPT = ("dim", "n_layers", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings", "activation")


def make(name: str, model_class, config: dict, kept, *, tokenizer=tiny_tokenizers.word_piece, first_position=None,
         positions=None, texts=TEXTS, own_tokenizer=True, options=None) -> None:
    """`first_position` is what a text's first token has, where the model is not to find that out from the ids (our
    WordPiece gives the padding token of some models a meaning); `positions` how many a text may have."""
    tokenizer = tokenizer()
    config = model_class.config_class(
        vocab_size=tokenizer.get_vocab_size(), attn_implementation="eager", **config)
    model = model_class(config, **(options or {})).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(weight(parameter_name, parameter.shape))
    limit = positions or config.max_position_embeddings - (first_position or 0)
    found = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > limit:
            # The special token behind a text stays.
            ids = ids[:limit - 1] + ids[-1:]
        inputs = {}
        if first_position is not None:
            inputs["position_ids"] = torch.arange(first_position, first_position + len(ids)).unsqueeze(0)
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), **inputs).last_hidden_state[0]
        found.append({"text": text, "ids": ids, "cls": base64_of(hidden[0]), "mean": base64_of(hidden.mean(0)),
                      "last": base64_of(hidden[-1])})
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    written = config.to_dict()
    write(f"{name}/config.json", {"model_type": config.model_type, **{key: written[key] for key in kept if key in written}})
    if own_tokenizer:
        write(f"{name}/tokenizer.json", json.loads(tokenizer.to_str()))
    write(f"{name}.json", {"made_with": made_with(), "tensors": shapes, "texts": found})


def make_all() -> None:
    without_pooler = dict(add_pooling_layer=False)
    bert = dict(**SIZES, max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12)
    make("tiny", transformers.BertModel, bert, (*KEPT, "type_vocab_size"), first_position=0, own_tokenizer=False,
         options=without_pooler)
    # With the trap that real tokenizers have: truncation and padding of their own.
    tokenizer = tiny_tokenizers.word_piece()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    write("tiny/tokenizer.json", json.loads(tokenizer.to_str()))

    mpnet = dict(**SIZES, max_position_embeddings=134, layer_norm_eps=1e-5, relative_attention_num_buckets=32)
    # Positions begin behind the padding token's, whose id is 1.
    make("mpnet", transformers.MPNetModel, mpnet, (*KEPT, "relative_attention_num_buckets"), first_position=2,
         texts=[*TEXTS, ALPHABETS], own_tokenizer=False, options=without_pooler)

    distilbert = dict(dim=40, n_layers=2, n_heads=5, hidden_dim=100, max_position_embeddings=48)
    make("distilbert", transformers.DistilBertModel, distilbert, DISTILBERT_KEPT, own_tokenizer=False)

    roberta = dict(**SIZES, max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
    kept = (*KEPT, "type_vocab_size", "pad_token_id", "position_embedding_type")
    for name, model_class in [("roberta", transformers.RobertaModel), ("xlm-roberta", transformers.XLMRobertaModel),
                              ("camembert", transformers.CamembertModel)]:
        make(name, model_class, roberta, kept, tokenizer=tiny_tokenizers.unigram, positions=48,
             options=without_pooler)

    sizes = dict(hidden_size=40, num_attention_heads=5, intermediate_size=52, max_position_embeddings=96)
    kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "intermediate_size", "vocab_size", "max_position_embeddings", "rope_parameters", "layer_types")
    modernbert = dict(**sizes, num_hidden_layers=4, local_attention=12, norm_eps=1e-5, pad_token_id=0, bos_token_id=2,
                      eos_token_id=3, cls_token_id=2, sep_token_id=3)
    make("modernbert", transformers.ModernBertModel, modernbert, (*kept, "local_attention", "norm_eps", "hidden_activation"),
         own_tokenizer=False)
    nomic_bert = dict(**sizes, num_hidden_layers=2, type_vocab_size=2, layer_norm_eps=1e-12)
    kept_of_bert = (*kept, "type_vocab_size", "layer_norm_eps", "hidden_act")
    make("nomic_bert", transformers.NomicBertModel, nomic_bert, kept_of_bert, own_tokenizer=False,
         options=without_pooler)
    gte = dict(**sizes, num_hidden_layers=2, type_vocab_size=1, layer_norm_eps=1e-12)
    make("gte", transformers.GteModel, gte, kept_of_bert, tokenizer=tiny_tokenizers.unigram, options=without_pooler)
    qwen3 = {**sizes, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2}
    make("qwen3", transformers.Qwen3Model, qwen3, (*kept, "rms_norm_eps", "hidden_act", "attention_bias"),
         tokenizer=tiny_tokenizers.byte_pairs)
    gemma3 = dict(**sizes, num_key_value_heads=1, head_dim=8, num_hidden_layers=4, sliding_window=12,
                  sliding_window_pattern=2, query_pre_attn_scalar=16, use_bidirectional_attention=True)
    make("gemma3_text", transformers.Gemma3TextModel, gemma3,
         (*kept, "rms_norm_eps", "hidden_activation", "sliding_window", "query_pre_attn_scalar",
          "use_bidirectional_attention"), tokenizer=tiny_tokenizers.unigram)


def make_static() -> None:
    """model2vec's models: one with a vector for each token, one whose tokens share vectors and have weights."""
    tokenizer = tiny_tokenizers.word_piece()
    tokens = tokenizer.get_vocab_size()
    texts = [*TEXTS, "\u2603", "hello " * 600]
    for name, vectors in [("model2vec", tokens), ("model2vec_shared", 12)]:
        embeddings = weight("embeddings", [vectors, 24]).numpy()
        shared = vectors < tokens
        mapping = np.array([token * 7 % vectors for token in range(tokens)]) if shared else None
        weights = weight("weights", [tokens]).numpy() + np.float32(1) if shared else None
        model = model2vec.StaticModel(embeddings, tokenizer, config={"model_type": "model2vec"}, normalize=True,
                                      weights=weights, token_mapping=mapping)
        found = [{"text": text, "mean": base64_of(model.encode(text, normalize=False))} for text in texts]
        write(f"{name}.json", {"made_with": made_with(model2vec), "vectors": vectors, "texts": found})
