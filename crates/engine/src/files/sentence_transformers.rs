//! The sentence-transformers settings for input texts: maximum length, lowercasing and prompts.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::json::read_if_exists;
use crate::LoadError;

/// The settings of `sentence_bert_config.json` and `tokenizer_config.json`.
#[derive(Clone, Debug)]
pub(crate) struct SentenceConfig {
    pub(crate) max_tokens: usize,
    pub(crate) lowercase: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SentenceBertFile {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

/// Reads the settings. The limit is that of sentence-transformers, else the tokenizer's, else `max_positions`.
pub(crate) fn read_sentence_config(
    directory: &Path,
    max_positions: usize,
) -> Result<SentenceConfig, LoadError> {
    let sentence: SentenceBertFile =
        read_if_exists(&directory.join("sentence_bert_config.json"))?.unwrap_or_default();
    let limit = match sentence.max_seq_length {
        Some(limit) => limit,
        None => {
            let tokenizer: TokenizerConfig =
                read_if_exists(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
            // 1e30 means no limit.
            let limit = tokenizer.model_max_length.filter(|limit| *limit >= 1.0);
            limit.map_or(max_positions, |limit| limit as usize)
        }
    };
    Ok(SentenceConfig { max_tokens: limit.clamp(1, max_positions), lowercase: sentence.do_lower_case })
}

/// The prompts that a model expects before a text, by the purpose of the text. From
/// `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    named: BTreeMap<String, String>,
    default: Option<String>,
}

impl Prompts {
    /// The prompt of the first of `names` that the model defines.
    pub fn named(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.named.get(*name)).map(String::as_str)
    }

    /// The prompt for a text without a stated purpose; empty if the model has no default.
    pub fn default_prompt(&self) -> &str {
        self.default.as_ref().and_then(|name| self.named.get(name)).map_or("", String::as_str)
    }

    /// All prompts with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(name, prompt)| (name.as_str(), prompt.as_str()))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptsConfig {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
}

pub(crate) fn read_prompts(directory: &Path) -> Result<Prompts, LoadError> {
    let config: PromptsConfig =
        read_if_exists(&directory.join("config_sentence_transformers.json"))?.unwrap_or_default();
    Ok(Prompts { named: config.prompts.unwrap_or_default(), default: config.default_prompt_name })
}
