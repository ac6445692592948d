//! The provider `onnx`: graphs of ONNX Runtime, whose library is loaded when the first model needs it. What stands around
//! the graph, tokenizer and pooling, is the engine's own, and so is everything about queues and memory: see `local`.

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

/// The provider `onnx`. `default` is what computes the graphs of models that have no setting of their own.
pub fn onnx(config: LocalConfig, runtime: Arc<OnnxRuntime>, default: Vec<String>) -> Local {
    let threads = Arc::clone(config.machine.threads());
    Local::of_format(config, Arc::new(Graphs { runtime, threads, default }))
}

/// What a directory's files say of its graph, and its fingerprint, without ONNX Runtime. Reads all of the graph.
///
/// # Errors
/// Files that are missing or cannot be used.
pub fn inspect(directory: &Path, options: &ModelOptions) -> Result<(LocalModelInfo, String), String> {
    let files = GraphFiles::open(directory, options, Vec::new())?;
    let fingerprint = files.fingerprint()?;
    Ok((files.into_facts(), fingerprint))
}

/// A graph in memory by itself, without queue and accounts, to be measured or tried.
pub struct LoadedGraph(Box<dyn Backend>);

impl LoadedGraph {
    /// Loads a directory's graph for the processor.
    ///
    /// # Errors
    /// ONNX Runtime is not here, or files are missing or cannot be used.
    pub fn load(
        directory: &Path,
        options: &ModelOptions,
        (runtime, threads): (&Arc<OnnxRuntime>, &Arc<Threads>),
    ) -> Result<Self, String> {
        let files = GraphFiles::open(directory, options, vec![CPU.to_owned()])?;
        files.with(Arc::clone(runtime), Arc::clone(threads)).load().map(Self)
    }

    /// A text as the model reads it, cut to its limit.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, TokenizeError> {
        self.0.tokenize(text, TruncationSide::Start)
    }

    /// Vectors of a batch, not of unit length.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String> {
        self.0.encode(batch)
    }
}

/// Directories with a graph.
struct Graphs {
    runtime: Arc<OnnxRuntime>,
    threads: Arc<Threads>,
    default: Vec<String>,
}

impl ModelFormat for Graphs {
    fn provider(&self) -> ProviderKind {
        ProviderKind::Onnx
    }

    fn open(&self, directory: &Path, options: &ModelOptions) -> Result<Box<dyn ModelOnDisk>, String> {
        let providers = options.onnx_providers.as_ref().unwrap_or(&self.default);
        let files = GraphFiles::open(directory, options, providers.clone())?;
        Ok(Box::new(files.with(Arc::clone(&self.runtime), Arc::clone(&self.threads))))
    }
}
