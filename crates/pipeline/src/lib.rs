#![doc = include_str!("../README.md")]

mod clock;
mod jobs;
mod orchestrator;
mod queue;
mod reconcile;
mod retention;
pub mod stages;
mod task;
mod worker;

pub use jobs::{
    ChunkSpan, Chunking, DocumentOutcome, DocumentRow, DocumentState, Edit, Job, JobAdmin, JobError,
    JobIntake, JobMaintenance, JobMetrics, JobOp, JobProgress, JobReader, JobSpec, JobStore, Loaded,
    LoadedDocument, NewDocument, NewJob, OpenResult, Page, PostgresJobs, RetryNote, SqliteJobs,
    SqliteJobsConfig, Status, Unfinished, Vectors, WriteResult,
};
pub use orchestrator::{
    Orchestrator, OrchestratorConfig, OrchestratorMetrics, OrchestratorStatus, PoolConfig, Scaling,
    SpawnWorker,
};
pub use queue::{
    Backlog, BacklogSize, Consumer, DeadLetter, DeadLetterId, DeadLetterStore, Depth, Lease, LeaseBatch,
    LeaseRequest, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Op, Outcome, Queue, QueueAdmin, QueueError,
    QueueOptions, RedisConfig, RedisQueue, SettleResult, SqliteQueue, StageMode, TaskProducer, WorkerQueue,
    WorkerStatus,
};
pub use reconcile::{ReconcileConfig, fail_dead_lettered, reconcile, reenqueue_missing, run_period};
pub use retention::run_retention;
pub use task::{JobId, Priority, Reason, Stage, Task, TaskId};

use task::MESSAGE_VERSION;
pub use worker::{ExclusiveGate, Worker, WorkerConfig, WorkerMetrics};
