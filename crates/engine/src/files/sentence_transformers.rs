//! How texts reach the transformer: how long they may be, whether they are lowercased, what is put before them.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::json::read_if_there;
use crate::LoadError;

/// What `sentence_bert_config.json` and `tokenizer_config.json` say.
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

/// sentence-transformers' own limit, else the tokenizer's, else the positions there are.
pub(crate) fn read_sentence(directory: &Path, positions: usize) -> Result<SentenceConfig, LoadError> {
    let sentence: SentenceBertFile =
        read_if_there(&directory.join("sentence_bert_config.json"))?.unwrap_or_default();
    let limit = match sentence.max_seq_length {
        Some(limit) => limit,
        None => {
            let tokenizer: TokenizerConfig =
                read_if_there(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
            // Files say 1e30 for "no limit".
            let limit = tokenizer.model_max_length.filter(|limit| *limit >= 1.0);
            limit.map_or(positions, |limit| limit as usize)
        }
    };
    Ok(SentenceConfig { max_tokens: limit.clamp(1, positions), lowercase: sentence.do_lower_case })
}

/// What a model wants put before a text, by the text's purpose. From `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    named: BTreeMap<String, String>,
    default: Option<String>,
}

impl Prompts {
    /// The prompt of the first of these names that the model has.
    pub fn named(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.named.get(*name)).map(String::as_str)
    }

    /// What is put before a text whose purpose is not said; empty where the model wants nothing.
    pub fn default_prompt(&self) -> &str {
        self.default.as_ref().and_then(|name| self.named.get(name)).map_or("", String::as_str)
    }

    /// All of them, by name.
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
        read_if_there(&directory.join("config_sentence_transformers.json"))?.unwrap_or_default();
    Ok(Prompts { named: config.prompts.unwrap_or_default(), default: config.default_prompt_name })
}
