//! The traits of a queue, one for each kind of caller.

use std::{collections::BTreeMap, time::Duration};

use embeddery_core::BoxFuture;

use super::{
    Backlog, Consumer, DeadLetter, DeadLetterId, Depth, Lease, LeaseBatch, LeaseRequest, Outcome, QueueError,
    SettleResult, StageMode, WorkerStatus,
};
use crate::{JobId, Priority, Stage, Task, TaskId};

/// The future of an operation.
pub type Op<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// The whole queue. Code that needs only a part of it takes the trait of that part.
pub trait Queue: TaskProducer + WorkerQueue + QueueAdmin + DeadLetterStore {}

impl<T: TaskProducer + WorkerQueue + QueueAdmin + DeadLetterStore> Queue for T {}

/// Adds tasks: for code that submits jobs or tries them again, and for the reconciler.
pub trait TaskProducer: Send + Sync {
    /// Adds tasks to their tenants' queues and returns which of them are new. A task whose id the queue holds, at any
    /// stage, does not change; so enqueueing twice is the same as enqueueing once. A dead letter of the same id is
    /// removed, and its task starts over.
    fn enqueue<'a>(&'a self, tasks: &'a [Task]) -> Op<'a, Vec<bool>>;

    /// Whether the queue holds each task; dead letters count as held. The reconciler enqueues those that it does not.
    fn contains<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>>;

    /// How much work is in the queue, of one tenant and of all tenants. The API refuses new jobs by it.
    fn backlog<'a>(&'a self, tenant: &'a str) -> Op<'a, Backlog>;
}

/// Leases tasks and settles them: for workers.
pub trait WorkerQueue: Send + Sync {
    /// Leases tasks to a worker. First, tasks of expired leases and delayed tasks that are due go back to their old
    /// positions. Then tenants take turns; within a tenant the order is priority, then age. Returns at once, with an
    /// empty batch when there is no work or the stage is paused.
    ///
    /// A lease that expires counts as a crash only if its worker has stopped sending heartbeats
    /// ([`WorkerQueue::heartbeat`]). A worker that still sends them does not know of the lease: the response that
    /// granted it was lost. Time in which no worker was heard ([`QueueOptions::outage_threshold`]) does not count
    /// towards a lease: the queue itself was unavailable.
    ///
    /// The tenant is charged for its turn when the task is leased. The charge is refunded when the lease ends without
    /// a result of the task's own. Refunds put a tenant ahead of others by one batch at most.
    ///
    /// [`QueueOptions::outage_threshold`]: super::QueueOptions::outage_threshold
    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, LeaseBatch>;

    /// Waits until [`WorkerQueue::lease`] may find work, but no longer than `max_wait`.
    fn wait(&self, stage: Stage, max_wait: Duration) -> BoxFuture<'_, ()>;

    /// Extends leases, and returns which of them the worker still holds; a lease of a cancelled job is not held. A
    /// renewal does not count as a delivery.
    fn renew<'a>(&'a self, leases: &'a [Lease], duration: Duration) -> Op<'a, Vec<bool>>;

    /// Ends leases. Each lease and its outcome are one step. Returns what the queue did with each.
    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<SettleResult>>;

    /// Registers a worker for `ttl`. A worker sends a heartbeat before it renews its leases, with a `ttl` of one lease
    /// duration. So a worker that is registered when a lease of its own expires does not know of that lease.
    fn heartbeat<'a>(&'a self, worker: &'a WorkerStatus, ttl: Duration) -> Op<'a, ()>;

    /// Removes a worker that shuts down in order. Leases that it still holds are released, uncharged.
    fn deregister<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()>;
}

/// Watches and controls the queue: for the operator's routes, the orchestrator and health checks.
pub trait QueueAdmin: Send + Sync {
    /// Removes a job's tasks that are not leased, and refuses the outcomes of the leased ones from now on. Returns how
    /// many tasks were removed.
    fn cancel(&self, job: JobId) -> Op<'_, u64>;

    /// Gives a job's tasks another priority, which they keep at later stages. Returns how many tasks moved.
    fn reprioritize(&self, job: JobId, priority: Priority) -> Op<'_, u64>;

    /// The number of tasks in each state, by stage.
    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>>;

    /// The mode of each stage. A stage is in [`StageMode::Run`] until it is changed.
    fn stage_modes(&self) -> Op<'_, BTreeMap<Stage, StageMode>>;

    /// Changes the mode of a stage. It outlives restarts.
    fn set_stage_mode(&self, stage: Stage, mode: StageMode) -> Op<'_, ()>;

    /// The registered workers.
    fn workers(&self) -> Op<'_, Vec<WorkerStatus>>;

    /// The name of the installation that this queue belongs to: the first name that was offered. A process that
    /// offers another name uses another state directory. A queue inside the state directory returns the offered name.
    fn claim_installation<'a>(&'a self, offered: &'a str) -> Op<'a, String> {
        Box::pin(async { Ok(offered.to_owned()) })
    }

    /// Checks that the queue responds. Returns the settings that could lose or evict work, each with its fix.
    fn health(&self) -> Op<'_, Vec<String>>;
}

/// Reads and removes dead letters: for the operator's routes and the reconciler.
pub trait DeadLetterStore: Send + Sync {
    /// Dead letters of a stage, newest first: those that come after `after`, at most `limit`.
    fn dead_letters(
        &self,
        stage: Stage,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Op<'_, Vec<DeadLetter>>;

    /// A dead letter of a stage; `None` when there is none of this id.
    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>>;

    /// Removes a dead letter for good; false when there is none of this id.
    fn delete_dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool>;

    /// Replaces the operator's remark on a dead letter; false when there is none of this id.
    fn annotate<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool>;

    /// The operator's remark on each dead letter.
    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>>;
}
