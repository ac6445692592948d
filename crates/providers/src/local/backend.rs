//! The runtime that tokenizes texts and computes vectors: the engine, or another one. Batching, memory and loading are the
//! same for all runtimes.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use embeddery_core::{LocalModelInfo, ProviderKind};
use embeddery_engine::{
    LoadOptions, Model, ModelFiles, Precision, Prompts, Threads, TokenizeError, Tokens, TruncationSide,
};

use super::ModelOptions;

/// The format of a provider's model directories.
pub(crate) trait ModelFormat: Send + Sync {
    /// The provider that uses the format.
    fn provider(&self) -> ProviderKind;

    /// Reads the configuration files of a directory, without the weights. Blocks on the disk.
    fn open(&self, directory: &Path, options: &ModelOptions) -> Result<Box<dyn ModelOnDisk>, String>;
}

/// A loaded model.
pub(crate) trait Backend: Send + Sync {
    /// Tokenizes a text and truncates it to the model's limit.
    fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError>;

    /// The number of tokens of a text before truncation.
    fn count(&self, text: &str) -> Result<usize, TokenizeError>;

    /// The vectors of a batch, `[texts × dimensions]`, not brought to unit length.
    ///
    /// # Errors
    /// What went wrong, for the log.
    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String>;

    /// The prompts of the model's files.
    fn prompts(&self) -> &Prompts;

    /// Identifies the vectors: those of equal fingerprints are comparable.
    fn fingerprint(&self) -> &str;

    /// The kernels or library in use, for the log.
    fn computes_with(&self) -> String;
}

/// A model on disk whose configuration files were read.
pub(crate) trait ModelOnDisk: Send + Sync {
    /// Properties that are known before it is loaded.
    fn info(&self) -> &LocalModelInfo;

    /// The same as [`Backend::fingerprint`], without loading the model. Reads all weights.
    fn fingerprint(&self) -> Result<String, String>;

    /// Loads it into memory.
    fn load(&self) -> Result<Box<dyn Backend>, String>;
}

/// Directories with safetensors, which run on the engine.
pub(super) struct Safetensors {
    pub(super) threads: Arc<Threads>,
    /// The precision of models without an option of their own.
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

/// A model directory of the engine.
struct EngineFiles {
    files: ModelFiles,
    options: LoadOptions,
    threads: Arc<Threads>,
    info: LocalModelInfo,
}

impl EngineFiles {
    fn new(files: ModelFiles, options: LoadOptions, threads: Arc<Threads>) -> Self {
        let engine_info = files.info();
        // A damaged weight file is reported when it is loaded. Until then its size is the estimate.
        let memory_bytes = files.memory(&options, threads.count()).unwrap_or(engine_info.weight_bytes);
        let info = LocalModelInfo {
            architecture: engine_info.architecture.to_owned(),
            dimensions: engine_info.dimensions,
            max_tokens: options.max_length.unwrap_or(engine_info.max_tokens),
            precision: files.precision(&options).as_str(),
            file_bytes: engine_info.weight_bytes,
            memory_bytes,
        };
        Self { files, options, threads, info }
    }
}

impl ModelOnDisk for EngineFiles {
    fn info(&self) -> &LocalModelInfo {
        &self.info
    }

    fn fingerprint(&self) -> Result<String, String> {
        self.files.fingerprint().map_err(|error| error.to_string())
    }

    fn load(&self) -> Result<Box<dyn Backend>, String> {
        let model = self.files.load(&self.options).map_err(|error| error.to_string())?;
        Ok(Box::new(EngineBackend { model, threads: Arc::clone(&self.threads) }))
    }
}

/// A model that runs on the engine.
struct EngineBackend {
    model: Model,
    threads: Arc<Threads>,
}

impl Backend for EngineBackend {
    fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.model.tokenize(text, truncation)
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
