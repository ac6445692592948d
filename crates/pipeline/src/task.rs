//! The unit of work: one document of one job at one stage. A task has the id of its document; texts, chunks and vectors
//! stay in the job store. So a task takes about two hundred bytes of the queue, whatever the size of its document.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{Unfinished, clock};

/// The version of the messages that this program writes. A message of a higher version is left to newer workers,
/// unchanged.
pub(crate) const MESSAGE_VERSION: u32 = 1;

/// The id of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a document of a job. It is the same at all stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The document's position in the job, from 0.
    pub item: u32,
}

/// A stage of the pipeline. A document goes through all stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The text is split into chunks.
    Chunking,
    /// The chunks are embedded.
    Embedding,
    /// Chunks and vectors are written to the collection.
    Storage,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 3] = [Self::Chunking, Self::Embedding, Self::Storage];

    /// The name in keys, configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunking => "chunking",
            Self::Embedding => "embedding",
            Self::Storage => "storage",
        }
    }

    /// The stage after this one; `None` after the last.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Chunking => Some(Self::Embedding),
            Self::Embedding => Some(Self::Storage),
            Self::Storage => None,
        }
    }
}

/// The order of a tenant's tasks, and their weight among tenants: a turn of a high-priority task costs half of a normal
/// one, and a turn of a low-priority task costs twice as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// After the tenant's other work.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before the tenant's other work.
    High,
}

/// A document of a job at a stage, as the queue carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The document.
    pub id: TaskId,
    /// The tenant that submitted it. Queues are fair between tenants.
    pub tenant: Arc<str>,
    /// The stage that it is at.
    pub stage: Stage,
    /// Its priority.
    pub priority: Priority,
    /// Bytes of text that the stage reads. Limits on the backlog count them.
    pub bytes: u64,
    /// Failures of the task itself at this stage.
    pub attempts: u32,
    /// Crashes of workers that had this task.
    pub deaths: u32,
    /// When the document entered the queue, in milliseconds since 1970.
    pub enqueued_at_ms: u64,
    /// The W3C trace context of the request that submitted the job.
    pub traceparent: Option<Arc<str>>,
}

impl Task {
    /// The task of a document at its stage, without failures.
    pub fn for_document(document: &Unfinished) -> Self {
        Self {
            id: document.task,
            tenant: Arc::clone(&document.tenant),
            stage: document.stage,
            priority: document.priority,
            bytes: document.bytes,
            attempts: 0,
            deaths: 0,
            enqueued_at_ms: clock::now_ms().max(document.since_ms),
            traceparent: document.traceparent.clone(),
        }
    }
}

/// Why a task failed: a stable code and a message. It never contains text of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// In snake case: `input_too_long`, `worker_died`.
    pub code: Arc<str>,
    /// What is wrong, and what to do.
    pub message: String,
}
