//! The contract of the job store: the truth about jobs, outside the queue. One per installation: SQLite in the state
//! directory, shared by the processes of one host, or PostgreSQL where several hosts work together.
//!
//! A document's row says how far it is. A stage first writes its result here and then settles its lease; a crash
//! between the two repeats the stage, which finds the result and only settles. Counts of a job are those of its rows.

mod codec;
mod metrics;
mod postgres;
mod sqlite;

pub use embeddery_ingest::ChunkSpan;
pub use metrics::JobMetrics;
pub use postgres::PostgresJobs;
pub use sqlite::{SqliteJobs, SqliteJobsConfig};

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use embeddery_core::{BoxFuture, SpaceId};
use serde_json::{Map, Value};

use crate::{JobId, Priority, Reason, Stage, TaskId};

/// The future of an operation.
pub type JobOp<'a, T> = BoxFuture<'a, Result<T, JobError>>;

/// The truth about jobs.
pub trait JobStore: Send + Sync {
    /// Opens a job that nobody sees and nothing works on yet; or finds the one of the same idempotency key.
    fn open(&self, job: NewJob) -> JobOp<'_, OpenResult>;

    /// Adds documents to an open job, all or none.
    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()>;

    /// Makes an open job run: from now on it is seen, and the reconciler answers for it. `body_hash` is the hash of
    /// the whole request, known only now when it was streamed.
    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, OpenResult>;

    /// Removes a job that was opened and will not start; one that runs stays.
    fn discard(&self, job: JobId) -> JobOp<'_, ()>;

    /// A job of a tenant; `None` also when it is another tenant's.
    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>>;

    /// A tenant's jobs, newest first.
    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>>;

    /// Documents of a job, by their place.
    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>>;

    /// All a stage needs of each document; `None` when the job is gone.
    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>>;

    /// Where documents' chunks stand; they are at [`Stage::Embedding`] now.
    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Documents' vectors; they are at [`Stage::Storage`] now.
    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Documents' ends. Text and results are removed unless it failed. The first end stays, and what was set back to
    /// be tried again does not end by a failure of the try before.
    fn finish(&self, ends: Vec<(TaskId, DocumentOutcome)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Notes why documents will be tried again, and when.
    fn record_retry(&self, notes: Vec<RetryNote>) -> JobOp<'_, ()>;

    /// Ends a job's unfinished documents as cancelled; false when it had ended already.
    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool>;

    /// Sets failed documents back to the stage they failed at, and the job to running; what to enqueue.
    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>>;

    /// The same for one document, changed as the edit says, also when it has not ended: then it stays at its stage,
    /// and a failure of the task that entered the queue then (as the task says) does not end it. `None` when it ended
    /// otherwise.
    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        of: (TaskId, u64),
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>>;

    /// Ends a job's unfinished documents as skipped, whoever's it is, and remembers that; false when there is no such
    /// job. The operator's way out of a job that nobody wants.
    fn skip(&self, job: JobId) -> JobOp<'_, bool>;

    /// Whether [`JobStore::skip`] was asked for; false also for a job that nobody knows.
    fn skipped(&self, job: JobId) -> JobOp<'_, bool>;

    /// Changes who goes first, whoever's the job is; false when there is no such job or it has ended.
    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool>;

    /// The jobs that were sent with this key, whoever's they are, newest first.
    fn find_by_idempotency_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>>;

    /// How many jobs of a tenant have not ended.
    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64>;

    /// Unfinished documents of running jobs that nothing has touched for this long, after this one, at most `limit`:
    /// what the reconciler compares with the queue.
    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>>;

    /// Claims something that one process is to do in a period; false while another's claim holds.
    fn claim_period(&self, what: &'static str, period: Duration) -> JobOp<'_, bool>;

    /// Removes jobs that ended before, and jobs opened but never started, by age; how many.
    fn purge_expired(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64>;

    /// Removes all of a tenant; how many jobs.
    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64>;

    /// How jobs ended that were ended through this.
    fn ended(&self) -> &JobMetrics;

    /// Whether the store can be used.
    fn health(&self) -> JobOp<'_, ()>;
}

/// A page of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page<State, Key> {
    /// Only those of this state.
    pub state: Option<State>,
    /// What comes after this one.
    pub after: Option<Key>,
    /// At most so many.
    pub limit: usize,
}

/// A job to be opened.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Who may repeat the request without repeating the job.
    pub idempotency_key: Option<String>,
    /// What is to be done with each document.
    pub plan: JobSpec,
    /// Who goes first.
    pub priority: Priority,
    /// The trace the job belongs to.
    pub traceparent: Option<Arc<str>>,
    /// How many unfinished jobs the tenant may have, this one included.
    pub max_unfinished: Option<u64>,
}

/// What is to be done with each document of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// Where it is stored; made when the first document is, bound to the model's space.
    pub collection: String,
    /// Who serves the model.
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
    /// The length asked for; `None` is the model's own.
    pub dimensions: Option<usize>,
    /// How texts are cut.
    pub chunking: Chunking,
}

/// How texts are cut, as it was asked for (and checked); the words are those of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunking {
    /// `recursive`, `markdown`, `sentences` …
    pub method: String,
    /// The most a chunk holds, in units.
    pub size: usize,
    /// What two neighbours share, in units.
    pub overlap: usize,
    /// `tokens`, `words`, `characters`.
    pub unit: String,
}

/// What became of opening a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenResult {
    /// It is new.
    New(JobId),
    /// The same request was sent before: this is its job.
    Same(JobId),
    /// The key was used for another request.
    Conflict(JobId),
    /// The tenant has this many unfinished jobs already; the job is removed.
    TooMany(u64),
}

/// A document to be ingested.
#[derive(Clone, Debug)]
pub struct NewDocument {
    /// Its id in the collection.
    pub id: String,
    /// Its text, never blank.
    pub text: String,
    /// What searches can filter by.
    pub metadata: Map<String, Value>,
    /// A MIME type or a language's name; chooses how `code` cuts.
    pub content_type: Option<String>,
}

/// What is changed of a document before it is tried again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// Its text, never blank. With another one it begins at the first stage.
    pub text: Option<String>,
    /// Its metadata.
    pub metadata: Option<Map<String, Value>>,
}

/// A job and its counts.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What is done.
    pub plan: JobSpec,
    /// Who goes first.
    pub priority: Priority,
    /// How far it is.
    pub status: Status,
    /// Documents by state.
    pub documents: BTreeMap<DocumentState, u64>,
    /// Chunks known, and stored.
    pub chunks: (u64, u64),
    /// When it was submitted, first worked on, and ended; milliseconds since 1970.
    pub submitted_at_ms: u64,
    /// First result.
    pub started_at_ms: Option<u64>,
    /// The end.
    pub ended_at_ms: Option<u64>,
    /// How many documents ended in the last minute, for a guess at the rest.
    pub ended_last_minute: u64,
    /// Who may repeat the request without repeating the job.
    pub idempotency_key: Option<String>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Nothing has been done.
    Pending,
    /// Something has been, not all.
    Running,
    /// Every document is stored.
    Completed,
    /// Some are stored, some failed.
    Partial,
    /// None is stored.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Status {
    /// All, in the order of the numbers they are stored as.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Completed, Self::Partial, Self::Failed, Self::Cancelled];

    /// Whether nothing more is done.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The name in answers and metrics.
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

/// How far a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentState {
    /// Waits for, or is in, this stage.
    At(Stage),
    /// It can be found.
    Stored,
    /// It could not be; the row says why.
    Failed,
    /// It was to be left out.
    Skipped,
    /// Its job was cancelled first.
    Cancelled,
    /// A later submission of it was stored first, and stays.
    Superseded,
}

/// A document of a job, without its text.
#[derive(Clone, Debug)]
pub struct DocumentRow {
    /// Its place.
    pub item: u32,
    /// Its id in the collection.
    pub id: String,
    /// How far it is.
    pub state: DocumentState,
    /// How many chunks it has, when it was cut.
    pub chunks: Option<u64>,
    /// The last failure, also one after which it is tried again; what it waits for; what overtook it.
    pub reason: Option<Reason>,
    /// Failures so far.
    pub attempts: u32,
    /// When it is tried again, by the clock of whoever put it off, in milliseconds since 1970.
    pub retry_at_ms: Option<u64>,
}

/// Why a document will be tried again.
#[derive(Clone, Debug)]
pub struct RetryNote {
    /// Which.
    pub task: TaskId,
    /// Why.
    pub reason: Reason,
    /// Whether it was the document's own failure.
    pub charged: bool,
    /// When, in milliseconds since 1970.
    pub retry_at_ms: u64,
}

/// A document that was to be loaded: `None` when its job is gone, an error when it cannot be read.
pub type Loaded = Result<Option<LoadedDocument>, JobError>;

/// All a stage needs.
#[derive(Clone, Debug)]
pub struct LoadedDocument {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What is done.
    pub plan: Arc<JobSpec>,
    /// How far the document is; a stage that is behind it only settles.
    pub state: DocumentState,
    /// The document.
    pub document: NewDocument,
    /// The result of chunking.
    pub chunks: Option<Vec<ChunkSpan>>,
    /// The result of embedding.
    pub vectors: Option<Vectors>,
}

/// A document's vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Which vectors they may be compared with.
    pub space: SpaceId,
    /// Length of each.
    pub dim: usize,
    /// For each chunk its row in `data`, or `None` when the collection has its vector already.
    pub rows: Vec<Option<u32>>,
    /// The rows, end to end.
    pub data: Vec<f32>,
}

/// How a document ended.
#[derive(Clone, Debug, PartialEq)]
pub enum DocumentOutcome {
    /// It can be found.
    Stored {
        /// How many chunks it has.
        chunks: u64,
    },
    /// A later submission of it was stored before.
    Superseded(Reason),
    /// It could not be stored.
    Failed {
        /// At which stage.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// When the task that failed entered the queue: [`Task::enqueued_at_ms`](crate::Task::enqueued_at_ms).
        enqueued_at_ms: u64,
    },
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Written.
    Written,
    /// The document is at this state already; the caller settles by it.
    Already(DocumentState),
    /// There is no such job any more.
    JobDeleted,
}

/// A document that has not ended.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Which.
    pub task: TaskId,
    /// Whose.
    pub tenant: Arc<str>,
    /// Where it stands.
    pub stage: Stage,
    /// Who goes first.
    pub priority: Priority,
    /// Bytes of text.
    pub bytes: u64,
    /// When it was last set back to be tried again; its tasks since then entered the queue no earlier.
    pub since_ms: u64,
    /// The trace it belongs to.
    pub traceparent: Option<Arc<str>>,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// Out of reach or busy; later may help.
    Unavailable(String),
    /// The disk is full, or close to it.
    Full(String),
    /// Written by a newer version of the program.
    TooNew(String),
    /// A defect of ours; the message is for the log.
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
