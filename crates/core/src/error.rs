//! What can go wrong, and what to do about it. Whoever sees a failure decides here, once, whose fault it
//! is and whether to try again; wrappers only obey, and the edge converts to a status once.

use std::{fmt, time::Duration};

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedError {
    /// What happened.
    pub kind: ErrorKind,
    /// Whose fault it is; only the upstream's faults count against it.
    pub fault: Fault,
    /// Whether the same request may succeed later.
    pub retry: Retry,
    /// What was wrong, where, and what to do, in words the caller may see.
    pub message: String,
    /// The inputs at fault; empty when it was not about an input.
    pub inputs: Vec<InputError>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request asks for something that cannot be given.
    InvalidRequest,
    /// An input is longer than the model reads and must not be cut.
    InputTooLong,
    /// Nobody serves a model of this name.
    ModelNotFound,
    /// The model is on its way to this machine.
    ModelLoading {
        /// Whole percent of the bytes that are here.
        percent: u8,
    },
    /// The model is here but cannot be used: its files are damaged or of an unknown architecture.
    ModelUnusable,
    /// Too much work is waiting.
    Overloaded,
    /// The deadline passed.
    Timeout,
    /// The provider is not configured, switched off or out of reach.
    Unavailable,
    /// Policy forbids this model or provider.
    Forbidden,
    /// The upstream asks for fewer requests or tokens; feeds the governor, never the breaker.
    RateLimited,
    /// The upstream says that one call carried too many tokens or bytes; the splitter halves it.
    BatchTooLarge,
    /// The upstream refuses our credentials; not retried, not counted by the breaker.
    UpstreamAuth,
    /// The breaker is open: the provider failed too often a moment ago.
    BreakerOpen,
    /// The upstream answered something that is not the answer to the question.
    BadUpstreamAnswer,
    /// A defect of ours.
    Internal,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller must change the request.
    Caller,
    /// The vendor or model server failed.
    Upstream,
    /// We failed, or are too busy.
    Us,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will not.
    Never,
    /// It may, after a pause the retrier chooses.
    Backoff,
    /// It may, after this pause at the earliest.
    After(Duration),
}

/// One input at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Its place in the request.
    pub index: usize,
    /// Its length in tokens, where that is what is wrong.
    pub tokens: Option<usize>,
}

impl EmbedError {
    /// The caller must change the request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, Fault::Caller, Retry::Never, message)
    }

    /// Nobody serves a model of this name.
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ModelNotFound, Fault::Caller, Retry::Never, message)
    }

    /// The deadline passed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, Fault::Us, Retry::Backoff, message)
    }

    /// A defect of ours; the message must not show anything internal.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, Fault::Us, Retry::Never, message)
    }

    /// Any failure, decision included.
    pub fn new(kind: ErrorKind, fault: Fault, retry: Retry, message: impl Into<String>) -> Self {
        Self { kind, fault, retry, message: message.into(), inputs: Vec::new() }
    }

    /// The same failure, saying which inputs it is about.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Vec<InputError>) -> Self {
        self.inputs = inputs;
        self
    }
}

impl fmt::Display for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EmbedError {}
