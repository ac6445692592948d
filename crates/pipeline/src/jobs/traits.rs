//! The traits of a job store, one for each kind of caller.

use std::time::Duration;

use embeddery_core::BoxFuture;

use super::{
    ChunkSpan, DocumentOutcome, DocumentRow, DocumentState, Edit, Job, JobError, JobMetrics, Loaded,
    NewDocument, NewJob, OpenResult, Page, RetryNote, Status, Unfinished, Vectors, WriteResult,
};
use crate::{JobId, Priority, TaskId};

/// The future of an operation.
pub type JobOp<'a, T> = BoxFuture<'a, Result<T, JobError>>;

/// The whole job store. Code that needs only a part of it takes the trait of that part.
pub trait JobStore: JobIntake + JobReader + JobProgress + JobAdmin + JobMaintenance {}

impl<T: JobIntake + JobReader + JobProgress + JobAdmin + JobMaintenance> JobStore for T {}

/// Accepts jobs: for the routes that submit one.
pub trait JobIntake: Send + Sync {
    /// Opens a job, which is invisible and gets no work until it starts. Returns the job that runs already with the
    /// same idempotency key, if there is one.
    fn open(&self, job: NewJob) -> JobOp<'_, OpenResult>;

    /// Adds documents to an open job, all or none.
    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()>;

    /// Starts an open job: from now on it is visible, and the reconciler makes sure that its tasks are in the queue.
    /// `body_hash` is the hash of the whole request; a streamed request has been read only now.
    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, OpenResult>;

    /// Removes an open job that will not start. A job that has started stays.
    fn discard(&self, job: JobId) -> JobOp<'_, ()>;
}

/// Reads jobs: for the routes that show them.
pub trait JobReader: Send + Sync {
    /// A job of a tenant; `None` also for a job of another tenant.
    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>>;

    /// A tenant's jobs, newest first.
    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>>;

    /// Documents of a job, in the order in which they were submitted.
    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>>;

    /// The started jobs of an idempotency key, of all tenants, newest first.
    fn find_by_idempotency_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>>;

    /// How many jobs of a tenant have not ended.
    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64>;

    /// Whether an operator has skipped a job ([`JobAdmin::skip`]); false also for an unknown job.
    fn skipped(&self, job: JobId) -> JobOp<'_, bool>;
}

/// Loads documents for the stages and keeps their results: for workers.
pub trait JobProgress: Send + Sync {
    /// Each document with the results so far; `None` when its job is deleted.
    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>>;

    /// Writes documents' chunks. The documents go to [`Stage::Embedding`](crate::Stage::Embedding).
    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Writes documents' vectors. The documents go to [`Stage::Storage`](crate::Stage::Storage).
    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Ends documents. Text and results are removed unless the document failed. Only the first outcome of a document
    /// counts. A document that was set back to be tried again does not end by a failure of an earlier try.
    fn finish(&self, outcomes: Vec<(TaskId, DocumentOutcome)>) -> JobOp<'_, Vec<WriteResult>>;

    /// Records why and when documents are tried again.
    fn record_retry(&self, notes: Vec<RetryNote>) -> JobOp<'_, ()>;
}

/// Changes jobs at the request of their tenants and of operators.
pub trait JobAdmin: Send + Sync {
    /// Ends a job's unfinished documents as cancelled; false when the job had ended already.
    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool>;

    /// Sets a job's failed documents back to the stage at which they failed, and the job to running. Returns the
    /// documents to enqueue.
    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>>;

    /// Edits one document and sets it back to the stage at which it failed. A document that has not ended stays at its
    /// stage, and does not end by a failure of the task that entered the queue at `enqueued_at_ms` or earlier. `None`
    /// when the document has ended in another way.
    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        task: TaskId,
        enqueued_at_ms: u64,
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>>;

    /// Ends a job's unfinished documents as skipped, and remembers that. The job may be of any tenant: this is how an
    /// operator ends a job. False when there is no such job.
    fn skip(&self, job: JobId) -> JobOp<'_, bool>;

    /// Changes the priority of a job of any tenant; false when there is no such job or it has ended.
    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool>;
}

/// Keeps the store in order: for the reconciler, the retention and health checks.
pub trait JobMaintenance: Send + Sync {
    /// Unfinished documents of running jobs that nothing has touched for `untouched`: those that come after `after`,
    /// at most `limit`. The reconciler compares them with the queue.
    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>>;

    /// Claims work that one process is to do per period; false while the claim of another process holds.
    fn claim_period(&self, work: &'static str, period: Duration) -> JobOp<'_, bool>;

    /// Removes jobs that ended longer ago than `ended`, and jobs that were opened longer ago than `abandoned` and never
    /// started. Returns how many.
    fn purge_expired(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64>;

    /// Removes everything of a tenant. Returns how many jobs.
    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64>;

    /// Counts of the jobs that this process has ended.
    fn metrics(&self) -> &JobMetrics;

    /// Checks that the store can be used.
    fn health(&self) -> JobOp<'_, ()>;
}
