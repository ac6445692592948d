//! The error of an embedding request. The code that detects a failure decides once which side is at fault and whether
//! a retry may help. The gateway's wrappers act on that decision, and the server maps it to a status.

use std::{fmt, time::Duration};

/// The failure of an embedding request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedError {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The side at fault. The circuit breaker counts only the upstream's faults.
    pub fault: Fault,
    /// Whether the same request may succeed later.
    pub retry: Retry,
    /// What is wrong, where, and how to fix it. The caller sees this text.
    pub message: String,
    /// The inputs at fault; empty for a failure that does not concern single inputs.
    pub inputs: Vec<InputError>,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed, or asks for something that the model does not support.
    InvalidRequest,
    /// An input exceeds the model's token limit, and truncation is not allowed.
    InputTooLong,
    /// No provider has a model of this name.
    ModelNotFound,
    /// The model is being downloaded or loaded.
    ModelLoading {
        /// Downloaded share of the model's bytes, in whole percent.
        percent: u8,
    },
    /// The model's files are damaged or of an unknown architecture.
    ModelUnusable,
    /// The queue is full.
    Overloaded,
    /// The deadline passed.
    Timeout,
    /// The provider is not configured, disabled or unreachable.
    Unavailable,
    /// The allow-list excludes this model or provider.
    Forbidden,
    /// The upstream's rate limit is exceeded. The upstream limiter counts it, the circuit breaker does not.
    RateLimited,
    /// One call had too many tokens or bytes for the upstream. The splitter halves it.
    BatchTooLarge,
    /// The upstream rejected this server's credentials. Not retried, and not counted by the circuit breaker.
    UpstreamAuth,
    /// The circuit breaker of the model's server is open after repeated failures.
    BreakerOpen,
    /// The upstream's response is malformed or does not match the request.
    InvalidUpstreamResponse,
    /// A defect in this program.
    Internal,
}

/// The side at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the request must change.
    Caller,
    /// The vendor or model server.
    Upstream,
    /// This service: it failed or is overloaded.
    Us,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot succeed.
    Never,
    /// It may succeed after a backoff that the caller of the embedder chooses.
    Backoff,
    /// It may succeed after this time at the earliest.
    After(Duration),
}

/// An input that caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Index of the input in the request.
    pub index: usize,
    /// Length of the input in tokens, if the length is the cause.
    pub tokens: Option<usize>,
}

impl EmbedError {
    /// An [`ErrorKind::InvalidRequest`], which is the caller's fault and is never retried.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, Fault::Caller, Retry::Never, message)
    }

    /// An [`ErrorKind::ModelNotFound`], which is the caller's fault and is never retried.
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ModelNotFound, Fault::Caller, Retry::Never, message)
    }

    /// An [`ErrorKind::Timeout`] of this service, which may be retried.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, Fault::Us, Retry::Backoff, message)
    }

    /// An [`ErrorKind::Internal`], which is never retried. The caller sees the message: it must not reveal internals.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, Fault::Us, Retry::Never, message)
    }

    /// An error without inputs at fault.
    pub fn new(kind: ErrorKind, fault: Fault, retry: Retry, message: impl Into<String>) -> Self {
        Self { kind, fault, retry, message: message.into(), inputs: Vec::new() }
    }

    /// Replaces the list of inputs at fault.
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
