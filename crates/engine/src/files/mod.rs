//! A model directory's configuration, read and checked, without its weights.
//!
//! What sentence-transformers reads is read, in its order: `modules.json` says which parts there are,
//! `config.json` what the transformer is, `1_Pooling/config.json` how tokens become one vector,
//! `sentence_bert_config.json` how long a text may be. What we cannot do is refused by name here, because a
//! wrong vector is worse than none.

mod json;
mod modules;
mod sentence;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use modules::Pooling;
pub(crate) use modules::{After, DenseConfig, Modules};
pub use sentence::Prompts;

use crate::{LoadError, LoadOptions, Model, arch::Architecture, weights};
use json::{read, unsupported};

/// Configuration of a model directory. Cheap to keep and to clone; [`load`](Self::load) brings the weights.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    pub(crate) directory: PathBuf,
    pub(crate) architecture: Architecture,
    pub(crate) config: EncoderConfig,
    pub(crate) modules: Modules,
    pub(crate) lowercase: bool,
    /// The files that hold the weights.
    pub(crate) weights: Vec<PathBuf>,
    prompts: Prompts,
    info: ModelInfo,
}

/// What is known of a model before its weights are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The architecture's name in `config.json`.
    pub architecture: &'static str,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Most tokens of one text, special tokens included.
    pub max_tokens: usize,
    /// Most tokens that the weights have positions for; `max_length` may raise `max_tokens` up to it.
    pub positions: usize,
    /// Layers.
    pub layers: usize,
    /// Rows of the word embeddings.
    pub vocabulary: usize,
    /// How token vectors become the text's.
    pub pooling: Pooling,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
}

/// What `config.json` says of an encoder of BERT's kind.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct EncoderConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    #[serde(default = "two")]
    pub(crate) type_vocab_size: usize,
    #[serde(default = "tiny")]
    pub(crate) layer_norm_eps: f32,
    /// MPNet's.
    #[serde(default = "thirty_two")]
    pub(crate) relative_attention_num_buckets: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

fn thirty_two() -> usize {
    32
}

fn two() -> usize {
    2
}

fn tiny() -> f32 {
    1e-12
}

fn gelu() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

impl ModelFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A missing or malformed file, or a model that this engine cannot run, by file and key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config_file = directory.join("config.json");
        let ModelType { model_type } = read(&config_file)?;
        let architecture = Architecture::named(&model_type)
            .ok_or_else(|| unsupported(&config_file, "model_type", &model_type, &Architecture::names()))?;
        let config: EncoderConfig = read(&config_file)?;
        check(&config_file, &config)?;
        let positions = architecture.positions(&config);
        if positions == 0 {
            let found = config.max_position_embeddings.to_string();
            return Err(unsupported(&config_file, "max_position_embeddings", &found, "3 or more"));
        }
        let modules = modules::read_modules(directory, config.hidden_size)?;
        let sentence = sentence::read_sentence(directory, positions)?;
        let (weights, weight_bytes) = weights::find(directory)?;
        let info = ModelInfo {
            architecture: architecture.name(),
            dimensions: modules.dimensions(),
            max_tokens: sentence.max_tokens,
            positions,
            layers: config.num_hidden_layers,
            vocabulary: config.vocab_size,
            pooling: modules.pooling,
            weight_bytes,
        };
        let prompts = sentence::read_prompts(directory)?;
        let directory = directory.to_path_buf();
        let lowercase = sentence.lowercase;
        Ok(Self { directory, architecture, config, modules, lowercase, weights, prompts, info })
    }

    /// What the model wants put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// What is known so far.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Reads weights and tokenizer and makes the model ready to compute.
    ///
    /// # Errors
    /// Damaged or contradictory files, by file and tensor; a setting that the model cannot meet.
    pub fn load(&self, options: &LoadOptions) -> Result<Model, LoadError> {
        Model::load(self, options)
    }
}

#[derive(Deserialize)]
struct ModelType {
    #[serde(default)]
    model_type: String,
}

/// Refuses what would silently give other vectors than the reference, and sizes that no model has.
fn check(file: &Path, config: &EncoderConfig) -> Result<(), LoadError> {
    if config.hidden_act != "gelu" {
        return Err(unsupported(file, "hidden_act", &config.hidden_act, "gelu (exact)"));
    }
    if config.position_embedding_type != "absolute" {
        return Err(unsupported(
            file,
            "position_embedding_type",
            &config.position_embedding_type,
            "absolute",
        ));
    }
    for (key, on) in [("is_decoder", config.is_decoder), ("add_cross_attention", config.add_cross_attention)]
    {
        if on {
            return Err(unsupported(file, key, "true", "false: encoders"));
        }
    }
    // Widths beyond this would overflow the sums of eight-bit products.
    const WIDEST: usize = 1 << 15;
    const MOST: usize = 1 << 24;
    let sizes = [
        ("hidden_size", config.hidden_size, 1..=WIDEST),
        ("num_hidden_layers", config.num_hidden_layers, 1..=MOST),
        ("num_attention_heads", config.num_attention_heads, 1..=WIDEST),
        ("intermediate_size", config.intermediate_size, 1..=WIDEST),
        ("vocab_size", config.vocab_size, 1..=MOST),
        ("max_position_embeddings", config.max_position_embeddings, 1..=MOST),
        ("type_vocab_size", config.type_vocab_size, 1..=MOST),
        ("relative_attention_num_buckets", config.relative_attention_num_buckets, 2..=MOST),
    ];
    for (key, size, allowed) in sizes {
        if !allowed.contains(&size) {
            let allowed = format!("{} to {}", allowed.start(), allowed.end());
            return Err(unsupported(file, key, &size.to_string(), &allowed));
        }
    }
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        let heads = format!(
            "{}, which does not divide hidden_size {}",
            config.num_attention_heads, config.hidden_size
        );
        return Err(unsupported(file, "num_attention_heads", &heads, "a divisor of hidden_size"));
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        return Err(unsupported(
            file,
            "layer_norm_eps",
            &config.layer_norm_eps.to_string(),
            "a number above 0 and below 1",
        ));
    }
    Ok(())
}
