//! A model whose transformer is an ONNX graph: its files, and the session that computes it.

use std::{
    borrow::Cow,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::LocalModelInfo;
use embeddery_engine::{Prompts, TextFiles, TextModel, Threads, TokenizeError, Tokens, TruncationSide};
use ort::{
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, Outlet, Tensor, TensorElementType},
};

use super::{batch, runtime::OnnxRuntime};
use crate::local::{
    ModelOptions,
    backend::{Backend, ModelOnDisk},
};

/// The default path of the graph.
pub const DEFAULT_GRAPH: &str = "onnx/model.onnx";
/// Memory of a loaded graph per byte of its files. The session keeps the weights, and the CPU kernels keep a packed copy of
/// most of them.
const WEIGHTS_FACTOR: u64 = 2;
/// Memory of the tokenizer per byte of its file, as in the engine: tokens with hash tables.
const TOKENIZER_FACTOR: u64 = 20;
/// Bytes of activations per token and hidden dimension.
const ACTIVATION_BYTES: usize = 100;
/// Minimum tokens of a batch in the memory estimate.
const MIN_BATCH_TOKENS: usize = 1024;

/// A directory with a graph.
pub(super) struct GraphFiles {
    text: TextFiles,
    /// The graph and its files of external weights.
    graph_files: Vec<PathBuf>,
    providers: Vec<String>,
    max_length: Option<usize>,
    info: LocalModelInfo,
}

/// A model on disk, with the runtime that it will run on.
pub(super) struct GraphModel {
    files: GraphFiles,
    runtime: Arc<OnnxRuntime>,
    threads: Arc<Threads>,
}

impl GraphFiles {
    pub(super) fn open(
        directory: &Path,
        options: &ModelOptions,
        providers: Vec<String>,
    ) -> Result<Self, String> {
        let text = TextFiles::open(directory).map_err(|error| error.to_string())?;
        let main = directory.join(options.onnx_file.as_deref().unwrap_or(DEFAULT_GRAPH));
        if !main.is_file() {
            return Err(format!(
                "{} does not exist; set `onnx_file` to another graph of the model's directory{}",
                main.display(),
                list_graphs(directory)
            ));
        }
        let external_weights = ["_data", ".data"].map(|ending| {
            let mut path = main.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        });
        let graph_files: Vec<PathBuf> =
            std::iter::once(main).chain(external_weights.into_iter().filter(|path| path.is_file())).collect();
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let file_bytes = graph_files.iter().map(size).sum();
        let max_length = options.max_length.map(NonZeroUsize::get);
        let max_tokens = max_length.unwrap_or(text.max_tokens());
        let activation_bytes = MIN_BATCH_TOKENS.max(max_tokens) * text.hidden() * ACTIVATION_BYTES;
        let info = LocalModelInfo {
            architecture: text.architecture().to_owned(),
            dimensions: text.dimensions(),
            max_tokens,
            precision: "onnx",
            file_bytes,
            memory_bytes: WEIGHTS_FACTOR * file_bytes
                + TOKENIZER_FACTOR * size(&directory.join("tokenizer.json"))
                + activation_bytes as u64,
        };
        Ok(Self { text, graph_files, providers, max_length, info })
    }

    pub(super) fn with_runtime(self, runtime: Arc<OnnxRuntime>, threads: Arc<Threads>) -> GraphModel {
        GraphModel { files: self, runtime, threads }
    }

    pub(super) fn into_info(self) -> LocalModelInfo {
        self.info
    }

    /// A hash of all files and settings that the vectors depend on.
    pub(super) fn fingerprint(&self) -> Result<String, String> {
        let mut hasher = blake3::Hasher::new();
        let files: Vec<PathBuf> = self.graph_files.iter().cloned().chain(self.text.files()).collect();
        for path in &files {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let file = fs::File::open(path).map_err(failed)?;
            // The length comes first, so that different files never hash the same concatenation.
            hasher.update(&file.metadata().map_err(failed)?.len().to_le_bytes());
            hasher.update_reader(file).map_err(failed)?;
        }
        hasher.update(format!("{:?}", self.text.pooling()).as_bytes());
        for (name, prompt) in self.text.prompts().iter() {
            hasher.update(name.as_bytes()).update(&[0]).update(prompt.as_bytes()).update(&[0]);
        }
        Ok(hasher.finalize().to_hex()[..32].to_owned())
    }
}

/// The graphs of a directory, as the end of an error message.
fn list_graphs(directory: &Path) -> String {
    let entries = ["", "onnx"].into_iter().flat_map(|below| {
        let entries = fs::read_dir(directory.join(below)).into_iter().flatten().flatten();
        entries.map(move |entry| Path::new(below).join(entry.file_name()))
    });
    let mut graphs: Vec<String> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| path.display().to_string())
        .collect();
    graphs.sort_unstable();
    if graphs.is_empty() { String::new() } else { format!(" (it has {})", graphs.join(", ")) }
}

impl ModelOnDisk for GraphModel {
    fn info(&self) -> &LocalModelInfo {
        &self.files.info
    }

    fn fingerprint(&self) -> Result<String, String> {
        self.files.fingerprint()
    }

    fn load(&self) -> Result<Box<dyn Backend>, String> {
        let files = &self.files;
        let text = files.text.load(files.max_length).map_err(|error| error.to_string())?;
        let fingerprint = files.fingerprint()?;
        let environment = self.runtime.environment()?;
        let providers = self.runtime.dispatch(&files.providers)?;
        let graph = &files.graph_files[0];
        let failed = |error: String| format!("{}: {error}", graph.display());
        let session = Session::builder(&environment)
            .map_err(|error| failed(error.to_string()))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|error| failed(error.to_string()))?
            .with_execution_providers(providers)
            .map_err(|error| failed(format!("onnx_providers: {error}")))?
            .commit_from_file(graph)
            .map_err(|error| failed(error.to_string()))?;
        let signature = Signature::from_session(&session, files.text.hidden(), files.text.dimensions())
            .map_err(failed)?;
        Ok(Box::new(GraphBackend {
            text,
            session: Mutex::new(session),
            signature,
            fingerprint,
            threads: Arc::clone(&self.threads),
            providers: files.providers.join(", "),
        }))
    }
}

/// The inputs and the output of a graph.
struct Signature {
    inputs: Vec<GraphInput>,
    output: String,
    /// Whether the graph pools: its output is `[texts × dimensions]` then, and `[texts × tokens × hidden]` otherwise.
    pooled: bool,
    /// The dimensions of an output vector.
    dim: usize,
}

/// One input of a graph.
struct GraphInput {
    name: String,
    role: Role,
    integer: Integer,
}

/// The meaning of an input.
#[derive(Clone, Copy)]
enum Role {
    Ids,
    Mask,
    Types,
    Positions,
}

/// The element type of an input.
#[derive(Clone, Copy)]
enum Integer {
    I64,
    I32,
}

impl Signature {
    fn from_session(session: &Session, hidden: usize, dimensions: usize) -> Result<Self, String> {
        let inputs = session.inputs().iter().map(graph_input).collect::<Result<Vec<_>, _>>()?;
        if !inputs.iter().any(|input| matches!(input.role, Role::Ids)) {
            return Err("the graph has no input 'input_ids'".into());
        }
        let rank = |outlet: &Outlet| outlet.dtype().tensor_shape().map_or(0, |shape| shape.len());
        let outputs = session.outputs();
        let named = |names: &[&str]| names.iter().find_map(|name| outputs.iter().find(|o| o.name() == *name));
        let tokens = named(&["last_hidden_state", "token_embeddings"])
            .filter(|outlet| rank(outlet) == 3)
            .or_else(|| outputs.iter().find(|outlet| rank(outlet) == 3));
        let (output, pooled) = match (tokens, named(&["sentence_embedding"])) {
            (Some(tokens), _) => (tokens, false),
            (None, Some(sentence)) => (sentence, true),
            (None, None) => {
                let names: Vec<&str> = outputs.iter().map(Outlet::name).collect();
                return Err(format!(
                    "the graph has the outputs {}; it must have last_hidden_state or sentence_embedding",
                    names.join(", ")
                ));
            }
        };
        let expected = if pooled { dimensions } else { hidden };
        let last = output.dtype().tensor_shape().and_then(|shape| shape.last().copied()).unwrap_or(-1);
        if last > 0 && last != i64::try_from(expected).unwrap_or(i64::MAX) {
            return Err(format!(
                "the graph's '{}' has vectors of {last} dimensions, but the model's configuration says {expected}",
                output.name()
            ));
        }
        Ok(Self { inputs, output: output.name().to_owned(), pooled, dim: expected })
    }
}

fn graph_input(outlet: &Outlet) -> Result<GraphInput, String> {
    let role = match outlet.name() {
        "input_ids" => Role::Ids,
        "attention_mask" => Role::Mask,
        "token_type_ids" => Role::Types,
        "position_ids" => Role::Positions,
        other => {
            return Err(format!(
                "the graph has an unknown input '{other}'; supported are input_ids, attention_mask, token_type_ids and \
                 position_ids (a graph for text generation is not an embedding model)"
            ));
        }
    };
    let integer = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Int64) => Integer::I64,
        Some(TensorElementType::Int32) => Integer::I32,
        other => {
            return Err(format!(
                "the graph's input '{}' is of type {other:?}, not an integer",
                outlet.name()
            ));
        }
    };
    Ok(GraphInput { name: outlet.name().to_owned(), role, integer })
}

/// A loaded graph.
struct GraphBackend {
    text: TextModel,
    session: Mutex<Session>,
    signature: Signature,
    fingerprint: String,
    threads: Arc<Threads>,
    providers: String,
}

impl GraphBackend {
    /// Runs the graph on one group, and writes the pooled vectors to their indices in `vectors`.
    fn run_group(
        &self,
        batch: &[&Tokens],
        group: &batch::Group<'_>,
        vectors: &mut [f32],
    ) -> Result<(), String> {
        let texts = || group.indices.iter().map(|index| batch[*index].ids());
        let (count, width) = (group.indices.len(), group.width);
        let inputs = self.signature.inputs.iter().map(|input| {
            let numbers: Vec<i64> = match input.role {
                Role::Ids => batch::pad_batch(texts(), width, |_, id| i64::from(id), 0),
                Role::Mask => batch::pad_batch(texts(), width, |_, _| 1, 0),
                Role::Types => vec![0; count * width],
                Role::Positions => batch::pad_batch(texts(), width, |position, _| position as i64, 0),
            };
            Ok((Cow::Borrowed(input.name.as_str()), tensor(numbers, [count, width], input.integer)?))
        });
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            inputs.collect::<Result<_, ort::Error>>().map_err(|error| error.to_string())?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs =
            self.threads.run_alongside(|| session.run(inputs)).map_err(|error| error.to_string())?;
        let output = outputs.get(&self.signature.output).ok_or("the graph returned no vectors")?;
        let numbers = numbers(output)?;
        let rows = if self.signature.pooled { count } else { count * width };
        let dim = self.signature.dim;
        if numbers.len() != rows * dim {
            return Err(format!(
                "the graph returned {} numbers for {count} texts of {width} tokens",
                numbers.len()
            ));
        }
        for (row, index) in group.indices.iter().enumerate() {
            let vector = &mut vectors[index * dim..][..dim];
            if self.signature.pooled {
                vector.copy_from_slice(&numbers[row * dim..][..dim]);
            } else {
                self.text.pool(&numbers[row * width * dim..][..batch[*index].len() * dim], vector);
            }
        }
        Ok(())
    }
}

impl Backend for GraphBackend {
    fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.text.tokenize(text, truncation)
    }

    fn count(&self, text: &str) -> Result<usize, TokenizeError> {
        self.text.count_tokens(text)
    }

    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String> {
        let lengths: Vec<usize> = batch.iter().map(|tokens| tokens.len()).collect();
        let mut vectors = vec![0.0; batch.len() * self.signature.dim];
        let order = batch::by_length(&lengths);
        for group in batch::groups(&order, &lengths) {
            self.run_group(batch, &group, &mut vectors)?;
        }
        Ok(if self.signature.pooled { vectors } else { self.text.finish(vectors) })
    }

    fn prompts(&self) -> &Prompts {
        self.text.prompts()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn computes_with(&self) -> String {
        format!("ONNX Runtime, {}", self.providers)
    }
}

fn tensor(
    numbers: Vec<i64>,
    shape: [usize; 2],
    integer: Integer,
) -> Result<SessionInputValue<'static>, ort::Error> {
    Ok(match integer {
        Integer::I64 => Tensor::from_array((shape, numbers))?.into(),
        // Token ids and positions are far below the limit of i32.
        Integer::I32 => {
            let narrow: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
            Tensor::from_array((shape, narrow))?.into()
        }
    })
}

/// The numbers of an output as f32.
fn numbers(output: &DynValue) -> Result<Cow<'_, [f32]>, String> {
    match output.dtype().tensor_type() {
        Some(TensorElementType::Float32) => {
            let (_, numbers) = output.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
            Ok(Cow::Borrowed(numbers))
        }
        Some(TensorElementType::Float16) => {
            let (_, numbers) = output.try_extract_tensor::<half::f16>().map_err(|error| error.to_string())?;
            Ok(numbers.iter().map(|number| number.to_f32()).collect::<Vec<_>>().into())
        }
        other => Err(format!("the graph's vectors have the type {other:?}; supported are f32 and f16")),
    }
}
