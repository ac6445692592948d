//! The provider `onnx`: models that run on ONNX Runtime. The library is loaded when the first model needs it. Tokenizer and
//! pooling are those of the engine; batching and memory are those of [`local`](crate::local).

mod batch;
mod graph;
mod runtime;

use std::{path::Path, sync::Arc};

use embeddery_core::{LocalModelInfo, ProviderKind};
use embeddery_engine::{Threads, TokenizeError, Tokens, TruncationSide};

use crate::local::{
    Local, LocalConfig, ModelOptions,
    backend::{Backend, ModelFormat, ModelOnDisk},
};
use graph::GraphFiles;

pub use graph::DEFAULT_GRAPH;
pub use runtime::{CPU, CUDA, ExecutionProvider, OnnxRuntime, RuntimeConfig};

/// Creates the provider `onnx`. `execution_providers` are those of models without an option of their own, in order of
/// preference.
pub fn onnx(config: LocalConfig, runtime: Arc<OnnxRuntime>, execution_providers: Vec<String>) -> Local {
    let threads = Arc::clone(config.resources.threads());
    Local::with_format(config, Arc::new(OnnxFormat { runtime, threads, execution_providers }))
}

/// The properties and the fingerprint of a directory's model, without ONNX Runtime. Reads the whole graph.
///
/// # Errors
/// Files are missing or invalid.
pub fn inspect(directory: &Path, options: &ModelOptions) -> Result<(LocalModelInfo, String), String> {
    let files = GraphFiles::open(directory, options, Vec::new())?;
    let fingerprint = files.fingerprint()?;
    Ok((files.into_info(), fingerprint))
}

/// A loaded graph without batching and memory budget, for benchmarks.
pub struct LoadedGraph(Box<dyn Backend>);

impl LoadedGraph {
    /// Loads a directory's graph for the CPU.
    ///
    /// # Errors
    /// ONNX Runtime is not installed, or files are missing or invalid.
    pub fn load(
        directory: &Path,
        options: &ModelOptions,
        runtime: &Arc<OnnxRuntime>,
        threads: &Arc<Threads>,
    ) -> Result<Self, String> {
        let files = GraphFiles::open(directory, options, vec![CPU.to_owned()])?;
        files.with_runtime(Arc::clone(runtime), Arc::clone(threads)).load().map(Self)
    }

    /// Tokenizes a text and truncates it to the model's limit.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, TokenizeError> {
        self.0.tokenize(text, TruncationSide::End)
    }

    /// The vectors of a batch, `[texts × dimensions]`, not brought to unit length.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String> {
        self.0.encode(batch)
    }
}

/// Directories with a graph.
struct OnnxFormat {
    runtime: Arc<OnnxRuntime>,
    threads: Arc<Threads>,
    execution_providers: Vec<String>,
}

impl ModelFormat for OnnxFormat {
    fn provider(&self) -> ProviderKind {
        ProviderKind::Onnx
    }

    fn open(&self, directory: &Path, options: &ModelOptions) -> Result<Box<dyn ModelOnDisk>, String> {
        let providers = options.onnx_providers.as_ref().unwrap_or(&self.execution_providers);
        let files = GraphFiles::open(directory, options, providers.clone())?;
        Ok(Box::new(files.with_runtime(Arc::clone(&self.runtime), Arc::clone(&self.threads))))
    }
}
