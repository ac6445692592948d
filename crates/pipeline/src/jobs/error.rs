//! Errors of the job store.

use std::fmt;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// The store is out of reach or busy. A retry may help.
    Unavailable(String),
    /// The disk is full, or nearly so.
    Full(String),
    /// A newer version of the program wrote the store.
    TooNew(String),
    /// A defect of this program; the message is for the log.
    Internal(String),
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(message)
            | Self::Full(message)
            | Self::TooNew(message)
            | Self::Internal(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for JobError {}
