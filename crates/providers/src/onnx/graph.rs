//! One model whose transformer is a graph: its files, and the session that computes it.

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

/// The graph where configuration names no other.
pub const DEFAULT_GRAPH: &str = "onnx/model.onnx";
/// Graphs keep their weights, and the CPU's kernels a packed copy of most of them.
const MEMORY_FACTOR: u64 = 2;
/// As of the engine's: tokens, with their hash tables.
const TOKENIZER_FACTOR: u64 = 20;
/// Bytes of activations for each token and hidden number.
const BUFFER_BYTES: usize = 100;
const USUAL_TOKENS: usize = 1024;

/// A directory with a graph.
pub(super) struct GraphFiles {
    text: TextFiles,
    /// The graph first, then what holds weights beside it.
    graph: Vec<PathBuf>,
    providers: Vec<String>,
    max_length: Option<usize>,
    facts: LocalModelInfo,
}

/// A model on disk, with what will run it.
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
                "{} is not there; `onnx_file` names another graph of the model's directory{}",
                main.display(),
                others(directory)
            ));
        }
        let beside = ["_data", ".data"].map(|ending| {
            let mut path = main.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        });
        let graph: Vec<PathBuf> =
            std::iter::once(main).chain(beside.into_iter().filter(|path| path.is_file())).collect();
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let file_bytes = graph.iter().map(size).sum();
        let max_length = options.max_length.map(NonZeroUsize::get);
        let max_tokens = max_length.unwrap_or(text.max_tokens());
        let buffers = USUAL_TOKENS.max(max_tokens) * text.hidden() * BUFFER_BYTES;
        let facts = LocalModelInfo {
            architecture: text.architecture().to_owned(),
            dimensions: text.dimensions(),
            max_tokens,
            precision: "onnx",
            file_bytes,
            memory_bytes: MEMORY_FACTOR * file_bytes
                + TOKENIZER_FACTOR * size(&directory.join("tokenizer.json"))
                + buffers as u64,
        };
        Ok(Self { text, graph, providers, max_length, facts })
    }

    pub(super) fn with(self, runtime: Arc<OnnxRuntime>, threads: Arc<Threads>) -> GraphModel {
        GraphModel { files: self, runtime, threads }
    }

    pub(super) fn into_facts(self) -> LocalModelInfo {
        self.facts
    }

    /// A hash of everything that the vectors depend on.
    pub(super) fn fingerprint(&self) -> Result<String, String> {
        let mut hasher = blake3::Hasher::new();
        let files: Vec<PathBuf> = self.graph.iter().cloned().chain(self.text.files()).collect();
        for path in &files {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let file = fs::File::open(path).map_err(failed)?;
            // Lengths first, so that no two models can run together.
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

/// The graphs that are there instead.
fn others(directory: &Path) -> String {
    let entries = ["", "onnx"].into_iter().flat_map(|below| {
        let entries = fs::read_dir(directory.join(below)).into_iter().flatten().flatten();
        entries.map(move |entry| Path::new(below).join(entry.file_name()))
    });
    let mut graphs: Vec<String> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| path.display().to_string())
        .collect();
    graphs.sort_unstable();
    if graphs.is_empty() { String::new() } else { format!(", there are {}", graphs.join(", ")) }
}

impl ModelOnDisk for GraphModel {
    fn facts(&self) -> &LocalModelInfo {
        &self.files.facts
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
        let graph = &files.graph[0];
        let failed = |error: String| format!("{}: {error}", graph.display());
        let session = Session::builder(&environment)
            .map_err(|error| failed(error.to_string()))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|error| failed(error.to_string()))?
            .with_execution_providers(providers)
            .map_err(|error| failed(format!("onnx_providers: {error}")))?
            .commit_from_file(graph)
            .map_err(|error| failed(error.to_string()))?;
        let shape = Shape::of(&session, files.text.hidden(), files.text.dimensions()).map_err(failed)?;
        Ok(Box::new(Graph {
            text,
            session: Mutex::new(session),
            shape,
            fingerprint,
            threads: Arc::clone(&self.threads),
            providers: files.providers.join(", "),
        }))
    }
}

/// What goes into a graph, and what comes out.
struct Shape {
    inputs: Vec<(String, Role, Integer)>,
    output: String,
    /// Whether the output is `[texts × dimensions]`, pooled by the graph, and not `[texts × tokens × hidden]`.
    pooled: bool,
    /// Numbers in one of its vectors.
    width: usize,
}

/// What an input is.
#[derive(Clone, Copy)]
enum Role {
    Ids,
    Mask,
    Types,
    Positions,
}

#[derive(Clone, Copy)]
enum Integer {
    I64,
    I32,
}

impl Shape {
    fn of(session: &Session, hidden: usize, dimensions: usize) -> Result<Self, String> {
        let inputs = session.inputs().iter().map(input).collect::<Result<Vec<_>, _>>()?;
        if !inputs.iter().any(|(_, role, _)| matches!(role, Role::Ids)) {
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
                    "the graph gives {}; needed is last_hidden_state or sentence_embedding",
                    names.join(", ")
                ));
            }
        };
        let due = if pooled { dimensions } else { hidden };
        let last = output.dtype().tensor_shape().and_then(|shape| shape.last().copied()).unwrap_or(-1);
        if last > 0 && last != i64::try_from(due).unwrap_or(i64::MAX) {
            return Err(format!(
                "the graph's '{}' has vectors of {last} numbers, the model's configuration promises {due}",
                output.name()
            ));
        }
        Ok(Self { inputs, output: output.name().to_owned(), pooled, width: due })
    }
}

fn input(outlet: &Outlet) -> Result<(String, Role, Integer), String> {
    let role = match outlet.name() {
        "input_ids" => Role::Ids,
        "attention_mask" => Role::Mask,
        "token_type_ids" => Role::Types,
        "position_ids" => Role::Positions,
        other => {
            return Err(format!(
                "the graph wants an input '{other}'; known are input_ids, attention_mask, token_type_ids and \
                 position_ids (a graph for generation is no embedding model)"
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
    Ok((outlet.name().to_owned(), role, integer))
}

/// A model in memory.
struct Graph {
    text: TextModel,
    session: Mutex<Session>,
    shape: Shape,
    fingerprint: String,
    threads: Arc<Threads>,
    providers: String,
}

impl Graph {
    /// One call of the graph; writes each text's pooled vector to its place in `vectors`.
    fn call(&self, batch: &[&Tokens], group: &batch::Group<'_>, vectors: &mut [f32]) -> Result<(), String> {
        let texts = || group.places.iter().map(|place| batch[*place].ids());
        let (count, width) = (group.places.len(), group.width);
        let inputs = self.shape.inputs.iter().map(|(name, role, integer)| {
            let numbers: Vec<i64> = match role {
                Role::Ids => batch::pad_batch(texts(), width, |_, id| i64::from(id), 0),
                Role::Mask => batch::pad_batch(texts(), width, |_, _| 1, 0),
                Role::Types => vec![0; count * width],
                Role::Positions => batch::pad_batch(texts(), width, |at, _| at as i64, 0),
            };
            Ok((Cow::Borrowed(name.as_str()), tensor(numbers, [count, width], *integer)?))
        });
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            inputs.collect::<Result<_, ort::Error>>().map_err(|error| error.to_string())?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs =
            self.threads.run_alongside(|| session.run(inputs)).map_err(|error| error.to_string())?;
        let output = outputs.get(&self.shape.output).ok_or("the graph gave no vectors")?;
        let numbers = numbers(output)?;
        let rows = if self.shape.pooled { count } else { count * width };
        let dim = self.shape.width;
        if numbers.len() != rows * dim {
            return Err(format!(
                "the graph gave {} numbers for {count} texts of {width} tokens",
                numbers.len()
            ));
        }
        for (row, place) in group.places.iter().enumerate() {
            let to = &mut vectors[place * dim..][..dim];
            if self.shape.pooled {
                to.copy_from_slice(&numbers[row * dim..][..dim]);
            } else {
                self.text.pool(&numbers[row * width * dim..][..batch[*place].len() * dim], to);
            }
        }
        Ok(())
    }
}

impl Backend for Graph {
    fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.text.tokenize(text, keep)
    }

    fn count(&self, text: &str) -> Result<usize, TokenizeError> {
        self.text.count_tokens(text)
    }

    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String> {
        let lengths: Vec<usize> = batch.iter().map(|tokens| tokens.len()).collect();
        let mut vectors = vec![0.0; batch.len() * self.shape.width];
        let order = batch::by_length(&lengths);
        for group in batch::groups(&order, &lengths) {
            self.call(batch, &group, &mut vectors)?;
        }
        Ok(if self.shape.pooled { vectors } else { self.text.finish(vectors) })
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
        // Ids of vocabularies and places in texts: far below the limit.
        Integer::I32 => {
            let narrow: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
            Tensor::from_array((shape, narrow))?.into()
        }
    })
}

/// An output's numbers as f32.
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
        other => Err(format!("the graph's vectors are of type {other:?}, not of floats")),
    }
}
