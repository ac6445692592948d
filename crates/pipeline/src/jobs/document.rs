//! Documents of a job.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ChunkSpan, JobError, JobSpec, Vectors};
use crate::{Priority, Reason, Stage, TaskId};

/// A document to ingest.
#[derive(Clone, Debug)]
pub struct NewDocument {
    /// Its id in the collection.
    pub id: String,
    /// Its text, never blank.
    pub text: String,
    /// What searches can filter by.
    pub metadata: Map<String, Value>,
    /// A MIME type or the name of a programming language. The chunking method `code` chooses its grammar by it.
    pub content_type: Option<String>,
}

/// Changes to a document before it is tried again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// A new text, never blank. A document with a new text starts over at the first stage.
    pub text: Option<String>,
    /// New metadata.
    pub metadata: Option<Map<String, Value>>,
}

/// How far a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentState {
    /// It waits for this stage, or a worker has it there.
    At(Stage),
    /// It is stored, and searches find it.
    Stored,
    /// It could not be stored; its row has the reason.
    Failed,
    /// An operator skipped its job.
    Skipped,
    /// Its job was cancelled.
    Cancelled,
    /// A later submission of the same document was stored before it, and stays; or its job has an equal document.
    Superseded,
}

impl From<Stage> for DocumentState {
    fn from(stage: Stage) -> Self {
        Self::At(stage)
    }
}

/// A document of a job, without its text.
#[derive(Clone, Debug)]
pub struct DocumentRow {
    /// Its position in the job, from 0.
    pub item: u32,
    /// Its id in the collection.
    pub id: String,
    /// How far it is.
    pub state: DocumentState,
    /// How many chunks it has, once it is split.
    pub chunks: Option<u64>,
    /// Why it failed last, also when it is tried again; what it waits for; or which submission superseded it.
    pub reason: Option<Reason>,
    /// How often it has failed.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970, by the clock of the worker that delayed it.
    pub retry_at_ms: Option<u64>,
}

/// Why and when a document is tried again.
#[derive(Clone, Debug)]
pub struct RetryNote {
    /// The document.
    pub task: TaskId,
    /// Why.
    pub reason: Reason,
    /// Whether the document itself failed.
    pub charged: bool,
    /// When, in milliseconds since 1970.
    pub retry_at_ms: u64,
}

/// The result of loading a document: `None` when its job is deleted, an error when it cannot be read.
pub type Loaded = Result<Option<LoadedDocument>, JobError>;

/// A document with all that a stage needs.
#[derive(Clone, Debug)]
pub struct LoadedDocument {
    /// The tenant that submitted it.
    pub tenant: Arc<str>,
    /// What to do with it.
    pub plan: Arc<JobSpec>,
    /// How far it is. A stage that the document has passed only settles its lease.
    pub state: DocumentState,
    /// The document.
    pub document: NewDocument,
    /// The result of chunking.
    pub chunks: Option<Vec<ChunkSpan>>,
    /// The result of embedding.
    pub vectors: Option<Vectors>,
}

/// A document that has not ended.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The document.
    pub task: TaskId,
    /// The tenant that submitted it.
    pub tenant: Arc<str>,
    /// The stage that it is at.
    pub stage: Stage,
    /// The priority of its job.
    pub priority: Priority,
    /// Bytes of its text.
    pub bytes: u64,
    /// When it was last set back to be tried again. Its tasks since then entered the queue no earlier.
    pub since_ms: u64,
    /// The W3C trace context of the request that submitted it.
    pub traceparent: Option<Arc<str>>,
}
