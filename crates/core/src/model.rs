//! Models: their names, providers, limits, spaces and states.

use std::{fmt, num::NonZeroUsize, str::FromStr, sync::Arc};

/// The providers. Their names are those of the deployment guide and of `provider:` prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// OpenAI and Azure OpenAI.
    OpenAi,
    /// Cohere, API v2.
    Cohere,
    /// Google Gemini.
    Google,
    /// Mistral.
    Mistral,
    /// Voyage AI.
    Voyage,
    /// A local model directory that this process runs with its own engine.
    HuggingFace,
    /// A local ONNX file that this process runs with ONNX Runtime.
    Onnx,
    /// A self-hosted model server: Ollama, TEI, llama.cpp, or any server with an OpenAI-compatible API.
    LocalApi,
}

impl ProviderKind {
    /// All providers, in the order in which lists show them.
    pub const ALL: [Self; 8] = [
        Self::OpenAi,
        Self::Cohere,
        Self::Google,
        Self::Mistral,
        Self::Voyage,
        Self::HuggingFace,
        Self::Onnx,
        Self::LocalApi,
    ];

    /// The name in configuration, prefixes, headers and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Cohere => "cohere",
            Self::Google => "google",
            Self::Mistral => "mistral",
            Self::Voyage => "voyage",
            Self::HuggingFace => "huggingface",
            Self::Onnx => "onnx",
            Self::LocalApi => "local_api",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = String;

    /// Ignores case: `x-provider: OpenAI` names openai.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name)).ok_or_else(|| {
            format!("'{name}' is not a provider; known are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// A reference to one model of one provider: the provider's name for the model and its revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// The provider's name for the model: `sentence-transformers/all-MiniLM-L6-v2`, `text-embedding-3-small`.
    pub name: Arc<str>,
    /// A hub revision (branch, tag or commit). `None` is the hub's `main`.
    pub revision: Option<Arc<str>>,
}

impl ModelRef {
    /// A model at its default revision.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), revision: None }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Information about a model that needs no embedding call.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The provider's name for the model; metrics and `X-Embeddings-Model` show it.
    pub name: Arc<str>,
    /// The provider of the model.
    pub provider: ProviderKind,
    /// Default vector length. `None` until the first response shows it.
    pub dimensions: Option<NonZeroUsize>,
    /// Maximum tokens of one input, with special tokens.
    pub max_tokens: Option<NonZeroUsize>,
    /// Whether the model has Matryoshka training: the first components of a vector, renormalised, are a valid vector.
    pub matryoshka: bool,
}

/// The limits of one call. `None` means that no limit is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallLimits {
    /// Maximum inputs of one call.
    pub items: Option<NonZeroUsize>,
    /// Maximum tokens of one call, over all inputs.
    pub tokens: Option<NonZeroUsize>,
    /// Maximum bytes of one call's body.
    pub bytes: Option<NonZeroUsize>,
    /// Vector lengths that the model supports by itself.
    pub dimensions: SupportedDimensions,
}

/// Vector lengths that a model supports besides its own. A request for one of these is forwarded to the provider. For
/// any other length the request's [`DimensionPolicy`](crate::DimensionPolicy) decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SupportedDimensions {
    /// Only the model's own length.
    #[default]
    Own,
    /// Any of these lengths.
    OneOf(Arc<[NonZeroUsize]>),
    /// Any length in this inclusive range.
    Between(NonZeroUsize, NonZeroUsize),
}

impl SupportedDimensions {
    /// Whether the model supports this length.
    pub fn contains(&self, length: NonZeroUsize) -> bool {
        match self {
            Self::Own => false,
            Self::OneOf(lengths) => lengths.contains(&length),
            Self::Between(min, max) => (*min..=*max).contains(&length),
        }
    }
}

/// The number of tokens of a text, exact or estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCount {
    /// Counted with the model's own tokenizer.
    Exact(usize),
    /// Estimated from the text's length; the real number may be higher or lower.
    Estimate(usize),
}

/// The id of a vector space. Vectors can be compared only if their ids are equal.
///
/// For a vendor's model it is built from names. For a local model it is a hash of weights, tokenizer, pooling and
/// prompts, followed by the dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpaceId(Arc<str>);

impl SpaceId {
    /// Wraps an id that a provider created.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as in the header `X-Embeddings-Space`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The space and precision of a model's vectors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingIdentity {
    /// The space of vectors of the model's own length.
    pub space: SpaceId,
    /// The compute precision (`f32`, `bf16`) of a local model. Vectors of two precisions can be compared, but their
    /// numbers differ slightly.
    pub precision: Option<&'static str>,
}

/// The state of a local model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Not on this machine.
    Absent,
    /// Being downloaded.
    Downloading {
        /// Downloaded share of the model's bytes, in whole percent.
        percent: u8,
    },
    /// On disk, not loaded.
    OnDisk,
    /// In memory, ready for requests.
    Loaded,
    /// On disk. It was unloaded because it was idle or because another model needed its memory; the next request loads
    /// it.
    Unloaded,
    /// The last download or load failed; the next request retries.
    Failed {
        /// Reason of the failure.
        reason: String,
    },
}

/// A model in a provider's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatus {
    /// The provider's name for the model.
    pub name: Arc<str>,
    /// The model's state.
    pub state: ModelState,
}

/// Information from the files of a local model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModelInfo {
    /// Architecture of the model: `bert`, `mpnet`.
    pub architecture: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Maximum tokens of one text, with special tokens.
    pub max_tokens: usize,
    /// Configured compute precision: `f32`, `bf16`.
    pub precision: &'static str,
    /// Size of the weight files in bytes.
    pub file_bytes: u64,
    /// Upper bound of the memory that the model takes, in bytes.
    pub memory_bytes: u64,
}

/// A description of a local model that is available without loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDescription {
    /// Information from the model's files.
    pub info: LocalModelInfo,
    /// The space of the model's vectors.
    pub space: SpaceId,
}
