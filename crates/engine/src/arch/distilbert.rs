//! DistilBERT: BERT without token types and with different tensor names. The reference is transformers'
//! `DistilBertModel` in evaluation mode.

use super::{
    bert,
    encoder_config::{
        BERT_NAMES, EncoderConfig, NormNames, PositionTable, QkvNames, Sizes, TensorNames, UpNames,
    },
};
use crate::{LoadError, files::Config};

const NAMES: TensorNames = TensorNames {
    layers: "transformer.layer",
    qkv: QkvNames::Separate(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    attention_output: "attention.out_lin",
    norms: NormNames::Post(["sa_layer_norm", "output_layer_norm"]),
    up: UpNames::Plain("ffn.lin1"),
    down: "ffn.lin2",
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("activation", "gelu")?;
    let (hidden, heads) = (config.width("dim")?, config.width("n_heads")?);
    let rows = config.size("max_position_embeddings")?;
    let encoder = EncoderConfig::with_bert_defaults(&Sizes {
        hidden,
        layers: config.size("n_layers")?,
        heads: bert::check_heads_divide(config, "n_heads", heads, hidden)?,
        intermediate: config.width("hidden_dim")?,
        vocabulary: config.size("vocab_size")?,
        max_positions: rows,
        epsilon: 1e-12,
    });
    let position_table = Some(PositionTable { rows, first: 0 });
    Ok(EncoderConfig { position_table, tensor_names: &[NAMES], prefixes: &["distilbert."], ..encoder })
}
