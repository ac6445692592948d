//! The configuration of a model directory, read and checked without its weights.
//!
//! Files are read in the order of sentence-transformers: `modules.json` lists the parts, `config.json` describes the
//! transformer, `1_Pooling/config.json` the pooling, `sentence_bert_config.json` the maximum length. A setting that the
//! engine does not support is an error that names it, because a wrong vector is worse than none.

use std::path::{Path, PathBuf};

use crate::{
    LoadError, Pooling, Prompts,
    arch::{Architecture, MODEL2VEC, NetworkConfig, StaticConfig},
    files::{Config, Modules, read_modules, read_prompts, read_sentence_config, read_static_modules},
    weights,
};

/// The configuration of a model directory. Cheap to clone. [`load`](Self::load) reads the weights.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    pub(crate) directory: PathBuf,
    pub(crate) network: NetworkConfig,
    pub(crate) modules: Modules,
    pub(crate) lowercase: bool,
    /// The files that hold the weights.
    pub(crate) weights: Vec<PathBuf>,
    prompts: Prompts,
    info: EngineModelInfo,
}

/// The properties of a model that are known before its weights are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineModelInfo {
    /// The architecture: `model_type` in `config.json`.
    pub architecture: &'static str,
    /// Length of a text's vector.
    pub dimensions: usize,
    /// Maximum tokens of a text, special tokens included. A longer text is truncated.
    pub max_tokens: usize,
    /// Number of positions that the weights support. [`LoadOptions::max_length`](crate::LoadOptions::max_length) may
    /// raise `max_tokens` up to it.
    pub max_positions: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Number of token ids: rows of the word embeddings.
    pub vocabulary: usize,
    /// How token vectors become the text's vector.
    pub pooling: Pooling,
    /// Size of the weight files in bytes.
    pub weight_bytes: u64,
}

impl ModelFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A file is missing or malformed, or the model is not supported. The error names the file and the key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config = Config::read(&directory.join("config.json"))?;
        let (architecture, network, modules, weights);
        if config.str_or("model_type", "")? == MODEL2VEC {
            architecture = MODEL2VEC;
            weights = weights::find(directory)?;
            network = NetworkConfig::Static(StaticConfig::read(&config, &weights.0)?);
            modules = read_static_modules(directory, network.hidden())?;
        } else {
            let known = Architecture::for_config(&config)?;
            architecture = known.name;
            network = NetworkConfig::Encoder(known.read_config(&config)?);
            modules = read_modules(directory, network.hidden())?;
            weights = weights::find(directory)?;
        }
        let sentence = read_sentence_config(directory, network.max_positions())?;
        let (weights, weight_bytes) = weights;
        let info = EngineModelInfo {
            architecture,
            dimensions: modules.dimensions(),
            max_tokens: sentence.max_tokens,
            max_positions: network.max_positions(),
            layers: network.layers(),
            vocabulary: network.vocabulary(),
            pooling: modules.pooling,
            weight_bytes,
        };
        let prompts = read_prompts(directory)?;
        let directory = directory.to_path_buf();
        let lowercase = sentence.lowercase;
        Ok(Self { directory, network, modules, lowercase, weights, prompts, info })
    }

    /// The prompts that the model expects before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The model's properties.
    pub fn info(&self) -> &EngineModelInfo {
        &self.info
    }
}
