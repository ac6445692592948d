//! The trait by which a local provider gets model files. The model store implements it, so that neither crate depends
//! on the other.

use std::{fmt, path::PathBuf};

use crate::{BoxFuture, ModelRef, Progress};

/// Maps a model name to a local directory with verified files.
pub trait ModelSource: Send + Sync {
    /// The directory of a model that is on this machine, otherwise `None`. Never uses the network.
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError>;

    /// Downloads the model unless it is on this machine, and returns its directory. Concurrent callers share one
    /// download, also across processes. Dropping the future stops the transfer; the next call resumes it.
    fn fetch<'a>(
        &'a self,
        model: &'a ModelRef,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<PathBuf, SourceError>>;

    /// Names of the models on this machine, sorted.
    fn list(&self) -> Vec<String>;
}

/// A failure to find or download a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// The kind of failure.
    pub kind: SourceErrorKind,
    /// What is wrong, where, and how to fix it.
    pub message: String,
}

/// The kind of a [`SourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// Not a valid model name: empty, a path traversal, or an absolute path that is not a directory.
    InvalidName,
    /// Neither on this machine nor on the hub.
    NotFound,
    /// Not on this machine, and the network must not be used.
    Offline,
    /// The hub requires a token or rejected the configured one.
    Unauthorized,
    /// The downloaded bytes do not match the hub's checksum.
    Corrupt,
    /// The hub is unreachable or returned an invalid response. A later attempt may succeed.
    Unreachable,
    /// A disk error on this machine.
    Io,
}

impl SourceError {
    /// An error with its message.
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
