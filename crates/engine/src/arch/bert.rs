//! BERT: absolute position embeddings, and token type 0 for every token, because an input is a single text. The
//! reference is transformers' `BertModel` in evaluation mode.

use super::encoder_config::{EncoderConfig, PositionTable, Sizes};
use crate::{LoadError, files::Config};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    let encoder = bert_like(config, 0, 1e-12)?;
    Ok(EncoderConfig { token_types: config.size_or("type_vocab_size", 2)?, prefixes: &["bert."], ..encoder })
}

/// The description that BERT shares with architectures that differ only in names or in position offsets. A text's first
/// token has position `first`.
pub(super) fn bert_like(config: &Config, first: usize, epsilon: f64) -> Result<EncoderConfig, LoadError> {
    config.require_value("position_embedding_type", "absolute")?;
    config.require_value("hidden_act", "gelu")?;
    config.require_flag("is_decoder", false)?;
    config.require_flag("add_cross_attention", false)?;
    let rows = config.size("max_position_embeddings")?;
    let encoder = EncoderConfig::with_bert_defaults(&sizes(config, rows.saturating_sub(first), epsilon)?);
    Ok(EncoderConfig { position_table: Some(PositionTable { rows, first }), ..encoder })
}

/// Reads the sizes from the keys that most architectures use.
pub(super) fn sizes(config: &Config, max_positions: usize, epsilon: f64) -> Result<Sizes, LoadError> {
    let (hidden, heads) = (config.width("hidden_size")?, config.width("num_attention_heads")?);
    Ok(Sizes {
        hidden,
        layers: config.size("num_hidden_layers")?,
        heads: check_heads_divide(config, "num_attention_heads", heads, hidden)?,
        intermediate: config.width("intermediate_size")?,
        vocabulary: config.size("vocab_size")?,
        max_positions: if max_positions > 0 {
            max_positions
        } else {
            return Err(config.unsupported(
                "max_position_embeddings",
                "too small for one token",
                "3 or more",
            ));
        },
        epsilon: config.epsilon("layer_norm_eps", epsilon)?,
    })
}

/// Returns `heads`, or an error unless it divides the hidden size.
pub(super) fn check_heads_divide(
    config: &Config,
    key: &str,
    heads: usize,
    hidden: usize,
) -> Result<usize, LoadError> {
    if hidden.is_multiple_of(heads) {
        return Ok(heads);
    }
    let found = format!("{heads}, which does not divide the hidden size {hidden}");
    Err(config.unsupported(key, &found, "a divisor of the hidden size"))
}
