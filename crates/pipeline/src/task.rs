//! The unit of work: one document of one job at one stage. A task names its document; texts, chunks and vectors
//! stay in the job store, so that a queue entry is some two hundred bytes whatever the document's size.

use std::{fmt, sync::Arc};

use uuid::Uuid;

/// Version of the message this program writes. One of a higher version is left to newer workers, not touched.
pub const MESSAGE_VERSION: u32 = 1;

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A document of a job: the same through all stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The document's place in the job, from 0.
    pub item: u32,
}

/// What is done to a document, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The text is cut.
    Chunking,
    /// Chunks become vectors.
    Embedding,
    /// Chunks and vectors are written to the collection.
    Storage,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 3] = [Self::Chunking, Self::Embedding, Self::Storage];

    /// The name in keys, configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunking => "chunking",
            Self::Embedding => "embedding",
            Self::Storage => "storage",
        }
    }

    /// What comes after; `None` after the last.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Chunking => Some(Self::Embedding),
            Self::Embedding => Some(Self::Storage),
            Self::Storage => None,
        }
    }
}

/// Who goes first among one tenant's tasks, and how large its share is among tenants: a high one's turn costs half of
/// a normal one's, a low one's twice as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// After the tenant's other work.
    Low,
    /// As everybody who says nothing.
    #[default]
    Normal,
    /// Before the tenant's other work.
    High,
}

/// A document of a job at a stage, as the queue carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Which document.
    pub id: TaskId,
    /// Whose it is; queues are fair between tenants.
    pub tenant: Arc<str>,
    /// What is to be done.
    pub stage: Stage,
    /// Who goes first.
    pub priority: Priority,
    /// Size of what the stage reads, for back-pressure: bytes of text.
    pub bytes: u64,
    /// Failures charged to this task at this stage.
    pub attempts: u32,
    /// Workers that died holding this task.
    pub deaths: u32,
    /// When the document entered the queue, in milliseconds since 1970.
    pub enqueued_at_ms: u64,
    /// The W3C trace context of the request that submitted the job.
    pub traceparent: Option<Arc<str>>,
}

/// Why a task failed: a short stable code and a sentence for people. Never holds the document's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable, in snake case: `input_too_long`, `worker_died`.
    pub code: Arc<str>,
    /// What was wrong and what to do.
    pub message: String,
}
