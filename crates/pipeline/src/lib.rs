//! Documents in, searchable vectors out, nothing lost.
//!
//! The truth about a job, with its documents' texts and the results of each stage, is in the [`JobStore`]; the
//! [`Queue`] holds only who does what next. What the queue loses is put there again from the truth, and a stage that
//! runs twice leaves the same result, so that a crash at any instruction loses nothing and stores nothing twice.

mod file;
mod jobs;
mod orchestrator;
mod queue;
mod reconcile;
mod retention;
pub mod stages;
mod task;
mod worker;
mod writer;

pub use jobs::{
    ChunkSpan, Chunking, DocumentOutcome, DocumentRow, DocumentState, Edit, Job, JobError, JobMetrics, JobOp,
    JobSpec, JobStore, Loaded, LoadedDocument, NewDocument, NewJob, OpenResult, Page, PostgresJobs,
    RetryNote, SqliteJobs, SqliteJobsConfig, Status, Unfinished, Vectors, WriteResult,
};
pub use orchestrator::{
    Orchestrator, OrchestratorConfig, OrchestratorMetrics, OrchestratorStatus, PoolConfig, Scaling,
    SpawnWorker,
};
pub use queue::{
    Backlog, BacklogSize, Consumer, DeadLetter, DeadLetterId, Depth, Lease, LeaseBatch, LeaseRequest,
    MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Op, Outcome, Queue, QueueError, QueueOptions, RedisConfig,
    RedisQueue, SettleResult, SqliteQueue, StageMode, WorkerStatus,
};
pub use reconcile::{ReconcileConfig, fail_dead_lettered, reconcile, reenqueue_missing, run_period, task};
pub use retention::run_retention;
pub use task::{JobId, MESSAGE_VERSION, Priority, Reason, Stage, Task, TaskId};
pub use worker::{ExclusiveGate, Worker, WorkerConfig, WorkerMetrics};
