//! Where a local provider gets model files from. The model store implements this; the two never meet.

use std::{fmt, path::PathBuf};

use crate::{BoxFuture, ModelRef, Progress};

/// A model's name becomes a directory with verified files.
pub trait ModelSource: Send + Sync {
    /// The directory of a model that is on this machine; `None` when it is not. Never uses the network.
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError>;

    /// Brings the model here (nothing to do when it is) and returns its directory. Two callers, also in
    /// two processes, fetch once. Dropping the future stops the transfer; what arrived is kept and resumed.
    fn fetch<'a>(
        &'a self,
        model: &'a ModelRef,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<PathBuf, SourceError>>;

    /// Names of the models on this machine, sorted.
    fn list(&self) -> Vec<String>;
}

/// Why a model could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// What happened, for decisions.
    pub kind: SourceErrorKind,
    /// What happened, where, and what to do about it, for a person.
    pub message: String,
}

/// What happened when a model could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The name cannot be a model's name (empty, a traversal, an absolute path that is no directory).
    InvalidName,
    /// Neither here nor on the hub.
    NotFound,
    /// Not here, and the network may not be used.
    Offline,
    /// The hub wants a token, or refuses the one it got.
    Unauthorized,
    /// What arrived is not what the hub announced.
    Corrupt,
    /// The hub could not be reached or answered nonsense; trying later may help.
    Unreachable,
    /// This machine's disk refused.
    Io,
}

impl SourceError {
    /// An error with its explanation.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {}
