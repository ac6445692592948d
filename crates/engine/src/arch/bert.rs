//! BERT: absolute positions, and a token type that is always the first, because one text has no other. The
//! reference is transformers' `BertModel` in evaluation mode.

use super::spec::{EncoderConfig, PositionTable, Sizes};
use crate::{LoadError, files::Config};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    let spec = bert_like(config, 0, 1e-12)?;
    Ok(EncoderConfig { token_types: config.size_or("type_vocab_size", 2)?, prefixes: &["bert."], ..spec })
}

/// What BERT and those that only name or count things otherwise have in common. A text's first token has the position
/// `first`.
pub(super) fn bert_like(config: &Config, first: usize, epsilon: f64) -> Result<EncoderConfig, LoadError> {
    config.require_value("position_embedding_type", "absolute")?;
    config.require_value("hidden_act", "gelu")?;
    config.only_flag("is_decoder", false)?;
    config.only_flag("add_cross_attention", false)?;
    let rows = config.size("max_position_embeddings")?;
    let spec = EncoderConfig::of_bert(&sizes(config, rows.saturating_sub(first), epsilon)?);
    Ok(EncoderConfig { position_table: Some(PositionTable { rows, first }), ..spec })
}

/// The sizes under the keys that most architectures use.
pub(super) fn sizes(config: &Config, positions: usize, epsilon: f64) -> Result<Sizes, LoadError> {
    let (hidden, heads) = (config.width("hidden_size")?, config.width("num_attention_heads")?);
    Ok(Sizes {
        hidden,
        layers: config.size("num_hidden_layers")?,
        heads: check_heads_divide(config, "num_attention_heads", (heads, hidden))?,
        intermediate: config.width("intermediate_size")?,
        vocabulary: config.size("vocab_size")?,
        positions: if positions > 0 {
            positions
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

/// A number of heads that must divide the hidden size.
pub(super) fn check_heads_divide(
    config: &Config,
    key: &str,
    (heads, hidden): (usize, usize),
) -> Result<usize, LoadError> {
    if hidden.is_multiple_of(heads) {
        return Ok(heads);
    }
    let found = format!("{heads}, which does not divide the hidden size {hidden}");
    Err(config.unsupported(key, &found, "a divisor of the hidden size"))
}
