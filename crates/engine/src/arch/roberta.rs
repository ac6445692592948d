//! RoBERTa, XLM-RoBERTa and CamemBERT: as BERT, with positions that begin behind the padding token's and a single token
//! type. The reference is transformers' `RobertaModel`, `XLMRobertaModel` and `CamembertModel` in evaluation mode.

use super::{bert, spec::EncoderConfig};
use crate::{LoadError, files::Config};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    // A text's first token has the position behind the padding token's id.
    let first = config.count_or("pad_token_id", 1)? + 1;
    let spec = bert::bert_like(config, first, 1e-5)?;
    // CamemBERT's checkpoints are named as RoBERTa's.
    Ok(EncoderConfig { token_types: config.size_or("type_vocab_size", 2)?, prefixes: &["roberta."], ..spec })
}
