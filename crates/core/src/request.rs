//! What is asked: inputs and how to treat them, and on whose behalf.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use crate::{RequestStats, TraceContext};

/// One batch of inputs for one model. A single text is a batch of one; there is no other form.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// What to embed, in order. Never empty.
    pub inputs: Arc<[Input]>,
    /// The vector length the caller wants; `None` is the model's own.
    pub dimensions: Option<NonZeroUsize>,
    /// What to do when the model cannot give `dimensions` itself.
    pub dimension_policy: DimensionPolicy,
    /// What to do with an input longer than the model reads; `None` is the provider's own rule.
    pub truncate: Option<Truncate>,
    /// Whether vectors are brought to unit length.
    pub normalize: bool,
    /// What the vectors are for, where the model makes a difference; `None` is the model's plain form.
    pub input_type: Option<InputType>,
    /// Whether inputs may fail alone ([`Embeddings::failed`](crate::Embeddings::failed)) instead of failing
    /// the request.
    pub partial: bool,
    /// On whose behalf, and until when.
    pub context: RequestContext,
}

impl EmbedRequest {
    /// Inputs with nothing said about how: whole vectors of unit length, or an error.
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

/// One thing to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text, never blank.
    Text(Arc<str>),
    /// Token ids of a vendor's tokenizer, never empty. Only that vendor's adapter gets to see them; for every
    /// other model they have been decoded to a text before.
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

/// What a vector is for. Mapped to a vendor's own field or to the model's own prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputType {
    /// Something that is searched with.
    Query,
    /// Something that is found.
    Document,
    /// The input of a classifier.
    Classification,
    /// A member of clusters.
    Clustering,
}

impl InputType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Document => "document",
            Self::Classification => "classification",
            Self::Clustering => "clustering",
        }
    }
}

/// Which end of an over-long input is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncate {
    /// Keep the beginning (what sentence-transformers does).
    End,
    /// Keep the end.
    Start,
    /// Refuse the request and say which inputs are too long.
    None,
}

/// What to do when the wanted dimension is not one the model was trained to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionPolicy {
    /// Refuse, saying what the model gives.
    Strict,
    /// Keep the first components and renormalise; a longer wish than the model has is refused.
    Reduce,
    /// As `Reduce`, and fill with zeros when more is wanted than the model has.
    Pad,
    /// Answer with the model's own dimension.
    Ignore,
}

impl DimensionPolicy {
    /// The policy's name in configuration and in `X-Embeddings-Dimensions-Policy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Reduce => "reduce",
            Self::Pad => "pad",
            Self::Ignore => "ignore",
        }
    }
}

/// What travels with a request but does not change its answer.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Whose request this is; queues are fair between tenants.
    pub tenant: Arc<str>,
    /// Ties log lines of one request together.
    pub request_id: Arc<str>,
    /// After this moment nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// Whether a person waits.
    pub priority: Priority,
    /// What happened on the way to the answer.
    pub notes: RequestStats,
    /// The trace it is a part of.
    pub trace: Option<TraceContext>,
}

impl RequestContext {
    /// A person's request without a deadline.
    pub fn new(tenant: impl Into<Arc<str>>, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            tenant: tenant.into(),
            request_id: request_id.into(),
            deadline: None,
            priority: Priority::Interactive,
            notes: RequestStats::default(),
            trace: None,
        }
    }
}

/// Who goes first where work has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A person waits.
    Interactive,
    /// A pipeline waits.
    Batch,
}
