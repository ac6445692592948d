//! The configuration files of a model directory, read and checked one by one: `config.json`, `modules.json`,
//! `1_Pooling/config.json`, `sentence_bert_config.json`, `config_sentence_transformers.json`.

mod config;
mod json;
mod modules;
mod sentence_transformers;

pub(crate) use config::{Config, MAX_WIDTH};
pub(crate) use json::read;
pub use modules::Pooling;
pub(crate) use modules::{DenseConfig, Modules, PostPooling, read_modules, read_static_modules};
pub use sentence_transformers::Prompts;
pub(crate) use sentence_transformers::{SentenceConfig, read_prompts, read_sentence_config};
