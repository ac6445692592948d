//! What is asked: inputs and how to treat them, and on whose behalf.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

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
    /// On whose behalf, and until when.
    pub context: Context,
}

/// One thing to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text, never blank.
    Text(Arc<str>),
}

impl Input {
    /// The text of this input.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
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
pub struct Context {
    /// Whose request this is; queues are fair between tenants.
    pub tenant: Arc<str>,
    /// Ties log lines of one request together.
    pub request_id: Arc<str>,
    /// After this moment nobody waits for the answer.
    pub deadline: Option<Instant>,
}
