//! JinaBERT v2: BERT with ALiBi (a bias on attention scores that grows with the distance of two tokens) instead of
//! position embeddings, and a gated feed-forward layer. Its repositories contain custom code and have the `model_type`
//! `bert`. The reference is candle-transformers' `jina_bert`.

use super::{
    bert,
    encoder_config::{
        BERT_NAMES, Biases, EncoderConfig, FeedForward, NormNames, ScoreBias, TensorNames, UpNames,
    },
};
use crate::{LoadError, files::Config, kernels::GluActivation};

const NAMES: TensorNames = TensorNames {
    norms: NormNames::Post(["attention.output.LayerNorm", "mlp.layernorm"]),
    up: UpNames::GateUp("mlp.gated_layers"),
    down: "mlp.wo",
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("position_embedding_type", "alibi")?;
    config.require_value("hidden_act", "gelu")?;
    config.require_value("feed_forward_type", "geglu")?;
    let encoder = EncoderConfig::with_bert_defaults(&bert::sizes(
        config,
        config.size("max_position_embeddings")?,
        1e-12,
    )?);
    Ok(EncoderConfig {
        token_types: config.count_or("type_vocab_size", 2)?,
        score_bias: Some(ScoreBias::Alibi),
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases { up: false, ..Biases::ALL },
        tensor_names: &[NAMES],
        prefixes: &["bert."],
        ..encoder
    })
}
