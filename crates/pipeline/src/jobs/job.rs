//! Jobs: what is submitted, and how far it is.

use std::{collections::BTreeMap, sync::Arc};

use super::DocumentState;
use crate::{JobId, Priority};

/// A page of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page<State, Key> {
    /// Only items in this state.
    pub state: Option<State>,
    /// Only items that come after this one.
    pub after: Option<Key>,
    /// Maximum number of items.
    pub limit: usize,
}

/// A job to open.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The tenant that submits it.
    pub tenant: Arc<str>,
    /// A request of the tenant with the same key does not make another job.
    pub idempotency_key: Option<String>,
    /// What to do with each document.
    pub plan: JobSpec,
    /// The priority of its tasks.
    pub priority: Priority,
    /// The W3C trace context of the request.
    pub traceparent: Option<Arc<str>>,
    /// Maximum number of unfinished jobs of the tenant, this one included.
    pub max_unfinished: Option<u64>,
}

/// What to do with each document of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// The collection that stores it. It is created with the first document, and bound to the model's space.
    pub collection: String,
    /// The provider of the model.
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
    /// Requested dimensions; `None` is the model's own.
    pub dimensions: Option<usize>,
    /// How texts are split.
    pub chunking: Chunking,
}

/// How texts are split, as it was requested and validated. The values are those of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunking {
    /// `recursive`, `markdown`, `sentences` …
    pub method: String,
    /// Maximum size of a chunk, in units.
    pub size: usize,
    /// Overlap of two neighbouring chunks, in units.
    pub overlap: usize,
    /// `tokens`, `words`, `characters`.
    pub unit: String,
}

/// The result of opening or starting a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenResult {
    /// The job is new.
    New(JobId),
    /// The same request was sent before: this is its job.
    Same(JobId),
    /// The idempotency key was used for another request: this is its job.
    Conflict(JobId),
    /// The tenant has this many unfinished jobs already. The open job is removed.
    TooMany(u64),
}

/// A job and its counts.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The tenant that submitted it.
    pub tenant: Arc<str>,
    /// What is done with each document.
    pub plan: JobSpec,
    /// The priority of its tasks.
    pub priority: Priority,
    /// How far it is.
    pub status: Status,
    /// Documents by state.
    pub documents: BTreeMap<DocumentState, u64>,
    /// Chunks of the documents that are split so far.
    pub chunks: u64,
    /// Chunks that are stored.
    pub stored_chunks: u64,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_at_ms: u64,
    /// When the first result was written.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Documents that ended in the last minute, to estimate the remaining time.
    pub ended_last_minute: u64,
    /// The idempotency key of the request.
    pub idempotency_key: Option<String>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// No document has a result.
    Pending,
    /// Some documents have results.
    Running,
    /// Every document is stored.
    Completed,
    /// Some documents are stored, some failed.
    Partial,
    /// No document is stored.
    Failed,
    /// The job was cancelled.
    Cancelled,
}

impl Status {
    /// All statuses, in the order of the numbers that stand for them in a database.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Completed, Self::Partial, Self::Failed, Self::Cancelled];

    /// Whether the job has ended.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The name in responses and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
