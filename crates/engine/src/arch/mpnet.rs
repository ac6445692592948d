//! MPNet: BERT with a bias on attention scores that depends on the distance of two tokens and is shared by all layers.
//! Positions start after the padding token's. The reference is transformers' `MPNetModel` in evaluation mode.

use super::{
    bert,
    encoder_config::{BERT_NAMES, EncoderConfig, NormNames, QkvNames, ScoreBias, TensorNames},
};
use crate::{LoadError, files::Config};

/// The padding token has id and position 1. A text's first token has the next position.
const FIRST_POSITION: usize = 2;

const NAMES: TensorNames = TensorNames {
    qkv: QkvNames::Separate(["attention.attn.q", "attention.attn.k", "attention.attn.v"]),
    attention_output: "attention.attn.o",
    norms: NormNames::Post(["attention.LayerNorm", "output.LayerNorm"]),
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    let key = "relative_attention_num_buckets";
    let buckets = if config.has(key) { config.size_in(key, 2..=1 << 24)? } else { 32 };
    let encoder = bert::bert_like(config, FIRST_POSITION, 1e-12)?;
    let score_bias = Some(ScoreBias::RelativeBuckets(buckets));
    Ok(EncoderConfig { score_bias, tensor_names: &[NAMES], prefixes: &["mpnet."], ..encoder })
}
