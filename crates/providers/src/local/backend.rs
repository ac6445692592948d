//! What reads texts and computes vectors once a model is in memory: the engine, or another runtime. Everything around it,
//! the queue, memory, loading and unloading, is the same for all.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use embeddery_core::{LocalModelInfo, ProviderKind};
use embeddery_engine::{
    LoadOptions, Model, ModelFiles, Precision, Prompts, Threads, TokenizeError, Tokens, TruncationSide,
};

use super::ModelOptions;

/// How a provider's model directories are read.
pub(crate) trait ModelFormat: Send + Sync {
    /// Whose models they are.
    fn provider(&self) -> ProviderKind;

    /// Reads a directory's configuration files; weights come later. Blocks on the disk.
    fn open(&self, directory: &Path, options: &ModelOptions) -> Result<Box<dyn ModelOnDisk>, String>;
}

/// A model in memory.
pub(crate) trait Backend: Send + Sync {
    /// A text as the model reads it.
    fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError>;

    /// Tokens of a text before any cut.
    fn count(&self, text: &str) -> Result<usize, TokenizeError>;

    /// Vectors of a batch, `[texts × dimensions]`, not of unit length; or what went wrong, for the log.
    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String>;

    /// What the model wants put before texts.
    fn prompts(&self) -> &Prompts;

    /// Identifies its vectors; equal ones may be compared.
    fn fingerprint(&self) -> &str;

    /// What it computes with, for the log: kernels, library.
    fn computes_with(&self) -> String;
}

/// A model on disk.
pub(crate) trait ModelOnDisk: Send + Sync {
    /// What is known of it before it is loaded.
    fn facts(&self) -> &LocalModelInfo;

    /// [`Backend::fingerprint`] without loading the model; reads all of the weights, though.
    fn fingerprint(&self) -> Result<String, String>;

    /// Brings it into memory.
    fn load(&self) -> Result<Box<dyn Backend>, String>;
}

/// Directories with safetensors, run by the engine.
pub(super) struct Safetensors {
    pub(super) threads: Arc<Threads>,
    /// Of models that have no setting of their own.
    pub(super) precision: Precision,
}

impl ModelFormat for Safetensors {
    fn provider(&self) -> ProviderKind {
        ProviderKind::HuggingFace
    }

    fn open(&self, directory: &Path, options: &ModelOptions) -> Result<Box<dyn ModelOnDisk>, String> {
        let files = ModelFiles::open(directory).map_err(|error| error.to_string())?;
        let load = LoadOptions {
            max_length: options.max_length.map(NonZeroUsize::get),
            precision: options.precision.unwrap_or(self.precision),
            ..LoadOptions::default()
        };
        Ok(Box::new(EngineFiles::new(files, load, Arc::clone(&self.threads))))
    }
}

/// A model of the engine.
struct EngineFiles {
    files: ModelFiles,
    options: LoadOptions,
    threads: Arc<Threads>,
    facts: LocalModelInfo,
}

impl EngineFiles {
    fn new(files: ModelFiles, options: LoadOptions, threads: Arc<Threads>) -> Self {
        let info = files.info();
        // A damaged weight file is told of when it is loaded, with all that is wrong; until then its size serves.
        let memory = files.memory(&options, threads.count()).unwrap_or(info.weight_bytes);
        let facts = LocalModelInfo {
            architecture: info.architecture.to_owned(),
            dimensions: info.dimensions,
            max_tokens: options.max_length.unwrap_or(info.max_tokens),
            precision: files.precision(&options).as_str(),
            file_bytes: info.weight_bytes,
            memory_bytes: memory,
        };
        Self { files, options, threads, facts }
    }
}

impl ModelOnDisk for EngineFiles {
    fn facts(&self) -> &LocalModelInfo {
        &self.facts
    }

    fn fingerprint(&self) -> Result<String, String> {
        self.files.fingerprint().map_err(|error| error.to_string())
    }

    fn load(&self) -> Result<Box<dyn Backend>, String> {
        let model = self.files.load(&self.options).map_err(|error| error.to_string())?;
        Ok(Box::new(Engine { model, threads: Arc::clone(&self.threads) }))
    }
}

/// A model run by the engine.
struct Engine {
    model: Model,
    threads: Arc<Threads>,
}

impl Backend for Engine {
    fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.model.tokenize(text, keep)
    }

    fn count(&self, text: &str) -> Result<usize, TokenizeError> {
        self.model.count_tokens(text)
    }

    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String> {
        self.model.encode(&self.threads, batch).map_err(|error| error.to_string())
    }

    fn prompts(&self) -> &Prompts {
        self.model.prompts()
    }

    fn fingerprint(&self) -> &str {
        self.model.fingerprint()
    }

    fn computes_with(&self) -> String {
        self.model.kernels().to_owned()
    }
}
