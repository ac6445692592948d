//! Documents in, searchable vectors out, nothing lost.
//!
//! The truth about a job, with its documents' texts and the results of each stage, is in the [`JobStore`]; the
//! [`Queue`] holds only who does what next. What the queue loses is put there again from the truth, and a stage that
//! runs twice leaves the same result, so that a crash at any instruction loses nothing and stores nothing twice.

mod jobs;
mod orchestrator;
mod queue;
mod reconcile;
mod retention;
pub mod stages;
mod task;
mod worker;

pub use jobs::{
    ChunkSpan, Chunking, DocumentRow, DocumentState, Edit, End, EndedJobs, Job, JobError, JobOp, JobStore,
    Loaded, NewDocument, NewJob, Note, Opened, Page, Plan, PostgresJobs, Put, SqliteJobs, SqliteJobsConfig,
    Status, Unfinished, Vectors, Work,
};
pub use orchestrator::{
    Findings, Hire, Orchestrator, OrchestratorConfig, OrchestratorMetrics, PoolConfig, Scaling,
};
pub use queue::{
    Asked, Consumer, DEATHS_ALONE, DEATHS_IN_COMPANY, DeadLetter, DeadLetterId, Depth, Flow, Handout, Lease,
    LeaseRequest, Op, Outcome, Pressure, Queue, QueueError, QueueOptions, RedisConfig, RedisQueue, Settled,
    SqliteQueue, WorkerReport,
};
pub use reconcile::{ReconcileConfig, note_dead, reconcile, round, task, turn};
pub use retention::retain;
pub use task::{JobId, MESSAGE_VERSION, Priority, Reason, Stage, Task, TaskId};
pub use worker::{Floor, Worker, WorkerConfig, WorkerMetrics};
