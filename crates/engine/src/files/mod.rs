//! A model directory's configuration, read and checked, without its weights.
//!
//! What sentence-transformers reads is read, in its order: `modules.json` says which parts there are,
//! `config.json` what the transformer is, `1_Pooling/config.json` how tokens become one vector,
//! `sentence_bert_config.json` how long a text may be. What we cannot do is refused by name here, because a
//! wrong vector is worse than none.

mod config;
mod json;
mod modules;
mod sentence_transformers;

use std::path::{Path, PathBuf};

pub(crate) use config::{Config, MAX_WIDTH};
pub(crate) use json::read;
pub use modules::Pooling;
pub(crate) use modules::read_modules;
pub(crate) use modules::{DenseConfig, Modules, PostPooling};
pub use sentence_transformers::Prompts;
pub(crate) use sentence_transformers::{SentenceConfig as TextLimits, read_prompts, read_sentence};

use crate::{
    LoadError, LoadOptions, Model,
    arch::{Architecture, MODEL2VEC, NetworkSpec, StaticSpec},
    weights,
};

/// Configuration of a model directory. Cheap to keep and to clone; [`load`](Self::load) brings the weights.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    pub(crate) directory: PathBuf,
    pub(crate) network: NetworkSpec,
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

impl ModelFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A missing or malformed file, or a model that this engine cannot run, by file and key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config = Config::read(&directory.join("config.json"))?;
        let (architecture, network, modules, weights);
        if config.text_or("model_type", "")? == MODEL2VEC {
            architecture = MODEL2VEC;
            weights = weights::find(directory)?;
            network = NetworkSpec::Static(StaticSpec::read(&config, &weights.0)?);
            modules = modules::of_static(directory, network.hidden())?;
        } else {
            let known = Architecture::of(&config)?;
            architecture = known.name;
            network = NetworkSpec::Encoder(known.spec(&config)?);
            modules = read_modules(directory, network.hidden())?;
            weights = weights::find(directory)?;
        }
        let sentence = read_sentence(directory, network.positions())?;
        let (weights, weight_bytes) = weights;
        let info = ModelInfo {
            architecture,
            dimensions: modules.dimensions(),
            max_tokens: sentence.max_tokens,
            positions: network.positions(),
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
