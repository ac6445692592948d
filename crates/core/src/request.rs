//! An embedding request: its inputs, how to embed them, and the tenant, deadline and priority.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use crate::{RequestStats, TraceContext};

/// One batch of inputs for one model. A single text is a batch of one input.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// The inputs, in order. Never empty.
    pub inputs: Arc<[Input]>,
    /// Requested vector length; `None` is the model's own length.
    pub dimensions: Option<NonZeroUsize>,
    /// What to do when the model does not support the requested `dimensions`.
    pub dimension_policy: DimensionPolicy,
    /// How to truncate an input over the model's token limit; `None` is the provider's default.
    pub truncate: Option<Truncate>,
    /// Whether vectors are normalised to unit length.
    pub normalize: bool,
    /// Purpose of the vectors, for models that distinguish purposes; `None` selects no purpose.
    pub input_type: Option<InputType>,
    /// Whether an input may fail alone ([`Embeddings::failed`](crate::Embeddings::failed)) instead of failing the
    /// whole request.
    pub partial: bool,
    /// Tenant, deadline, priority and counters.
    pub context: RequestContext,
}

impl EmbedRequest {
    /// A request with default options: vectors of the model's own dimensions, normalised, and no partial results.
    pub fn with_defaults(inputs: impl Into<Arc<[Input]>>, context: RequestContext) -> Self {
        Self {
            inputs: inputs.into(),
            dimensions: None,
            dimension_policy: DimensionPolicy::Strict,
            truncate: None,
            normalize: true,
            input_type: None,
            partial: false,
            context,
        }
    }
}

/// One item to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text that is not blank.
    Text(Arc<str>),
    /// Token ids of OpenAI's tokenizers, never empty. Only OpenAI's adapter receives them; the gateway decodes them to
    /// text for every other model.
    Tokens(Arc<[u32]>),
}

impl Input {
    /// The text of this input; `None` for token ids.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Tokens(_) => None,
        }
    }
}

/// The purpose of a vector. Adapters map it to the vendor's field or to the model's prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputType {
    /// A search query.
    Query,
    /// A document to be searched.
    Document,
    /// The input of a classifier.
    Classification,
    /// An item to cluster.
    Clustering,
}

impl InputType {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Document => "document",
            Self::Classification => "classification",
            Self::Clustering => "clustering",
        }
    }
}

/// How an input over the model's token limit is truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncate {
    /// Drop tokens at the end, as sentence-transformers does.
    End,
    /// Drop tokens at the start.
    Start,
    /// Do not truncate: fail the request and name the inputs that are too long.
    None,
}

/// What to do when the model does not support the requested dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionPolicy {
    /// Fail the request; the error names the model's dimensions.
    Strict,
    /// Keep the first components and renormalise. A request for more dimensions than the model has fails.
    Reduce,
    /// As `Reduce`, and append zeros when the request exceeds the model's dimensions.
    Pad,
    /// Return vectors of the model's own dimensions.
    Ignore,
}

impl DimensionPolicy {
    /// The name in configuration and in the header `X-Embeddings-Dimensions-Policy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Reduce => "reduce",
            Self::Pad => "pad",
            Self::Ignore => "ignore",
        }
    }
}

/// Data that accompanies a request and does not change its vectors.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The tenant. Queues are fair between tenants.
    pub tenant: Arc<str>,
    /// The id that log lines of this request share.
    pub request_id: Arc<str>,
    /// The moment after which the caller no longer waits for the response.
    pub deadline: Option<Instant>,
    /// The priority where work has to wait.
    pub priority: Priority,
    /// Counters of this request: cache hits, attempts, upstream time.
    pub stats: RequestStats,
    /// The trace that this request belongs to.
    pub trace: Option<TraceContext>,
}

impl RequestContext {
    /// An interactive request without a deadline.
    pub fn new(tenant: impl Into<Arc<str>>, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            tenant: tenant.into(),
            request_id: request_id.into(),
            deadline: None,
            priority: Priority::Interactive,
            stats: RequestStats::default(),
            trace: None,
        }
    }
}

/// The order of requests that have to wait: the first variant goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A user waits for the response.
    Interactive,
    /// A background job waits for the response.
    Batch,
}
