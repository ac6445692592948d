//! Errors of the queue.

use std::fmt;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The queue is out of reach. It is unknown whether the step was done. A retry may help.
    Unavailable(String),
    /// The queue's disk or memory is full. Nothing was done.
    Full(String),
    /// A newer version of the program wrote the queue.
    TooNew(String),
    /// A defect of this program; the message is for the log.
    Internal(String),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(message)
            | Self::Full(message)
            | Self::TooNew(message)
            | Self::Internal(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for QueueError {}
