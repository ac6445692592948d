//! RoBERTa, XLM-RoBERTa and CamemBERT: BERT with positions that start after the padding token's, and a single token
//! type. The reference is transformers' `RobertaModel`, `XLMRobertaModel` and `CamembertModel` in evaluation mode.

use super::{bert, encoder_config::EncoderConfig};
use crate::{LoadError, files::Config};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    // Positions start at the padding token's id plus 1.
    let first = config.count_or("pad_token_id", 1)? + 1;
    let encoder = bert::bert_like(config, first, 1e-5)?;
    // CamemBERT's checkpoints use RoBERTa's prefix.
    Ok(EncoderConfig {
        token_types: config.size_or("type_vocab_size", 2)?,
        prefixes: &["roberta."],
        ..encoder
    })
}
