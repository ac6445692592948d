//! What a model is called, who serves it, what it can take, and in what state it is.

use std::{fmt, num::NonZeroUsize, str::FromStr, sync::Arc};

/// Everyone who can serve a model. The names are those of the deployment guide and of `provider:` prefixes.
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
    /// A model directory run by this process' own engine.
    HuggingFace,
    /// An ONNX file run through ONNX Runtime.
    Onnx,
    /// A server near by: Ollama, TEI, llama.cpp, anything that speaks OpenAI's form.
    LocalApi,
}

impl ProviderKind {
    /// Every provider, in the order in which they are listed to users.
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

    /// The provider's name in configuration, prefixes, headers, labels.
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

    /// Case does not matter: `x-provider: OpenAI` names openai.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name)).ok_or_else(|| {
            format!("'{name}' is not a provider; known are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// One model of one provider, as asked for: the provider's own name and, where it has versions, which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// The provider's name for it: `sentence-transformers/all-MiniLM-L6-v2`, `text-embedding-3-small`.
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

/// What is known of a model without asking it to embed anything.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The provider's name for the model; metrics and `X-Embeddings-Model` show it.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: ProviderKind,
    /// Length of a vector when the request does not ask for another. `None`: learnt from the first answer.
    pub dimensions: Option<NonZeroUsize>,
    /// Most tokens of one input, special tokens included.
    pub max_tokens: Option<NonZeroUsize>,
    /// Whether a leading part of a vector, renormalised, is itself a good vector (Matryoshka training).
    pub matryoshka: bool,
}

/// What one call may carry. `None` means: no limit known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallLimits {
    /// Inputs in one call.
    pub items: Option<NonZeroUsize>,
    /// Tokens in one call, over all its inputs.
    pub tokens: Option<NonZeroUsize>,
    /// Bytes of one call's body.
    pub bytes: Option<NonZeroUsize>,
    /// The vector lengths that the model itself gives when asked.
    pub lengths: SupportedDimensions,
}

/// Which vector lengths may be asked of a model besides its own. Whatever is in here is forwarded; for any
/// other length the request's policy decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SupportedDimensions {
    /// Its own, and no other.
    #[default]
    Own,
    /// Each of these.
    OneOf(Arc<[NonZeroUsize]>),
    /// Everything from the first to the second.
    Between(NonZeroUsize, NonZeroUsize),
}

impl SupportedDimensions {
    /// Whether a length may be asked for.
    pub fn contains(&self, length: NonZeroUsize) -> bool {
        match self {
            Self::Own => false,
            Self::OneOf(lengths) => lengths.contains(&length),
            Self::Between(least, most) => (*least..=*most).contains(&length),
        }
    }
}

/// How many tokens a text has, and whether that is known or guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCount {
    /// Counted with the model's own tokenizer.
    Exact(usize),
    /// Guessed from its length; the truth may be higher or lower.
    Estimate(usize),
}

/// Which vectors may be compared with each other: equal ids, comparable vectors.
///
/// A vendor's space name, or a hash of weights, tokenizer, pooling and prompts, with the dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpaceId(Arc<str>);

impl SpaceId {
    /// Wraps an id that a provider made.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as it stands in the header `X-Embeddings-Space`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the numbers of a model's plain vectors depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingIdentity {
    /// The space of its vectors at their own length.
    pub space: SpaceId,
    /// What it computes in (`f32`, `bf16`), where that is a choice of ours. Vectors of two precisions may be
    /// compared, but they are not the same numbers.
    pub precision: Option<&'static str>,
}

/// Where a model of a local provider stands in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Not on this machine.
    Absent,
    /// On its way here.
    Downloading {
        /// Whole percent of the bytes that are here.
        percent: u8,
    },
    /// On disk, not in memory.
    OnDisk,
    /// In memory, ready to answer.
    Loaded,
    /// On disk; was in memory until nobody used it or another needed the room, and will be with the next request.
    Unloaded,
    /// The last attempt to fetch or load it failed; the next request tries again.
    Failed {
        /// Why, in words for a person.
        reason: String,
    },
}

/// A model that a provider knows of, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatus {
    /// The provider's name for it.
    pub name: Arc<str>,
    /// Where it stands.
    pub state: ModelState,
}

/// What the files of a model on this machine say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModelInfo {
    /// What kind of model it is: `bert`, `mpnet`.
    pub architecture: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Most tokens of one text, special tokens included.
    pub max_tokens: usize,
    /// What it computes in (`f32`, `bf16`) as it is configured here.
    pub precision: &'static str,
    /// Bytes of its weight files.
    pub file_bytes: u64,
    /// The most that it takes in memory.
    pub memory_bytes: u64,
}

/// All that is known of a model on this machine without loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDescription {
    /// What its files say.
    pub facts: LocalModelInfo,
    /// Which vectors its own are.
    pub space: SpaceId,
}
