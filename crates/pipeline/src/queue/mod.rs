//! The contract of a queue, and the two that keep it: [`SqliteQueue`] for one machine, [`RedisQueue`] for many. Each
//! method is one atomic step, and each may be repeated after an answer was lost.
//!
//! A task is in one of these places at any moment: waiting (in its tenant's list of a stage), ready (picked by the
//! pump, fair between tenants), leased, delayed, or dead. All stages have their own lists, so that one tenant's ten
//! thousand documents never stand before another's five at any stage. A lease is fenced: who lost it cannot settle.

mod notifier;
mod record;
mod redis;
mod sqlite;

use std::{collections::BTreeMap, fmt, time::Duration};

use embeddery_core::BoxFuture;

use crate::{JobId, Reason, Stage, Task, TaskId};

pub use redis::{RedisConfig, RedisQueue};
pub use sqlite::SqliteQueue;

/// The future of an operation.
pub type Op<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// Who does what next.
pub trait Queue: Send + Sync {
    /// Puts tasks into their tenants' lists and says which were new. A task whose id the queue holds, at whatever
    /// stage, stays as it is; so enqueueing twice is enqueueing once. A dead one is done anew: its letter is gone.
    fn enqueue<'a>(&'a self, tasks: &'a [Task]) -> Op<'a, Vec<bool>>;

    /// Leases tasks to a consumer. Tasks of expired leases and delayed ones that are due go back to their places
    /// first, which are before all that came later; then tenants take turns, each with its first by priority and age.
    /// Returns at once, empty when there is nothing (or the stage is paused).
    ///
    /// A lease that expired is a death when its consumer is not heard of any more. One that still reports
    /// ([`Queue::heartbeat`]) does not know of the lease: the answer that gave it was lost. And time in which nobody at
    /// all was heard ([`QueueOptions::outage_threshold`]) is not counted: the queue itself was away.
    ///
    /// A turn is paid for when the task is leased, and given back when nothing came of it that was the task's own
    /// doing; but nobody gets ahead of others by more than a batch that way.
    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, LeaseBatch>;

    /// Waits until [`Queue::lease`] may find something, or this long.
    fn wait(&self, stage: Stage, at_most: Duration) -> BoxFuture<'_, ()>;

    /// Lengthens leases and says which are still held and wanted: a cancelled job's are not. Never counts as a
    /// delivery.
    fn renew<'a>(&'a self, leases: &'a [Lease], by: Duration) -> Op<'a, Vec<bool>>;

    /// Ends leases, each as one step with what comes after: what the queue did with each.
    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<SettleResult>>;

    /// Takes a job's waiting, ready and delayed tasks out and refuses the leased ones' outcomes from now on. Returns
    /// how many were taken out.
    fn cancel(&self, job: JobId) -> Op<'_, u64>;

    /// Moves a job's waiting tasks to another priority; later stages keep it.
    fn reprioritize(&self, job: JobId, priority: crate::Priority) -> Op<'_, u64>;

    /// For each id, whether the queue holds it (dead letters count): the reconciler enqueues the others.
    fn contains<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>>;

    /// How much is where, by stage.
    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>>;

    /// How much a tenant, and everybody, has waiting: what the API refuses new jobs by.
    fn backlog<'a>(&'a self, tenant: &'a str) -> Op<'a, Backlog>;

    /// How a stage flows; [`StageMode::Run`] until said otherwise. Outlives restarts.
    fn set_flow(&self, stage: Stage, flow: StageMode) -> Op<'_, ()>;

    /// How each stage flows.
    fn flow(&self) -> Op<'_, BTreeMap<Stage, StageMode>>;

    /// Dead letters of a stage, newest first, after this id, at most `limit`.
    fn dead_letters(
        &self,
        stage: Stage,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Op<'_, Vec<DeadLetter>>;

    /// A dead letter of a stage; `None` when it is gone.
    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>>;

    /// Puts a dead letter's task back to its stage's list with no failures charged; false when it is gone.
    fn revive<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool>;

    /// Removes a dead letter for good; false when it was gone.
    fn delete_dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool>;

    /// Keeps a remark of the operator's with a dead letter, in place of an earlier one; false when it is gone.
    fn annotate<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool>;

    /// For each dead letter, the operator's remark.
    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>>;

    /// Makes a worker known for this long. Who renews its leases reports before, for as long as a lease: then it is
    /// known when a lease expires only if it let that happen.
    fn heartbeat<'a>(&'a self, worker: &'a WorkerStatus, lives: Duration) -> Op<'a, ()>;

    /// Workers known now.
    fn workers(&self) -> Op<'_, Vec<WorkerStatus>>;

    /// Takes a consumer out that stops in order; its leases, if any, are handed back uncharged.
    fn deregister<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()>;

    /// The name of the installation that this queue belongs to: the first that was offered. Whoever offers another
    /// one does not share its state directory. A queue that lies in that directory has no need to ask.
    fn claim_installation<'a>(&'a self, offered: &'a str) -> Op<'a, String> {
        Box::pin(async { Ok(offered.to_owned()) })
    }

    /// Whether the queue answers, and what could lose or evict work there, each with the setting that mends it.
    fn health(&self) -> Op<'_, Vec<String>>;
}

/// One start of one worker: never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumer(pub String);

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// Of which stage.
    pub stage: Stage,
    /// Who asks.
    pub consumer: &'a Consumer,
    /// As many as it has free slots.
    pub most: usize,
    /// For how long.
    pub length: Duration,
    /// Whether it runs nothing else: only then may it get a task that must run alone.
    pub idle: bool,
}

/// What a worker gets.
#[derive(Clone, Debug, Default)]
pub struct LeaseBatch {
    /// Its leases.
    pub leases: Vec<Lease>,
    /// A task waits that must run alone, and it is this worker's turn to become idle and ask again.
    pub drain_for_exclusive: bool,
}

/// A task that is this consumer's for a while.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The task.
    pub task: Task,
    /// Whose it is.
    pub consumer: Consumer,
    /// Changes with every lease of the task: the fence.
    pub token: String,
    /// Whether the process must run nothing beside it, because two deaths could have been its doing. Then it came as
    /// the only one.
    pub exclusive: bool,
}

/// What comes after a lease.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// On to the stage after this; `bytes` is what that one reads. After the last stage the task is done.
    Next {
        /// Size of what the next stage reads.
        bytes: u64,
    },
    /// There is nothing more to do with this document (skipped, cancelled, failed without a dead letter).
    Finished,
    /// Again after this pause. Charged when the failure was the task's own; a provider's outage is not.
    RetryAfter {
        /// How long.
        after: Duration,
        /// Whether it counts as an attempt.
        charged: bool,
    },
    /// Back to the front of the list at once, uncharged: the worker stops.
    Release,
    /// The work broke off as it does when a worker dies, and counts as such; again after this pause.
    Crashed {
        /// How long.
        after: Duration,
    },
    /// Put aside for the operator.
    DeadLetter(Reason),
}

/// What the queue did with an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleResult {
    /// As asked.
    Done,
    /// The lease was not this consumer's any more: nothing was done, another has the task.
    Lost,
    /// The job is cancelled: the task is out of the queue.
    Cancelled,
}

/// How a stage flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StageMode {
    /// Work is handed out.
    #[default]
    Run,
    /// Nothing is handed out; what is leased ends.
    Pause,
    /// What is in the stage is worked off; what would enter waits before it.
    Drain,
}

/// After so many deaths a task runs alone.
pub const MAX_SHARED_CRASHES: u32 = 2;

/// After so many more deaths, all alone, it is put aside with the reason `worker_died`.
pub const MAX_ISOLATED_CRASHES: u32 = 3;

/// What turns that came to nothing may put a tenant ahead of others, in the measure of turns: about a batch.
const MAX_FAIRNESS_CREDIT: i64 = 1 << 19;

/// What is said of a task that killed too many workers.
fn died() -> String {
    format!(
        "{} workers ended, or stopped answering, while they had this document, {MAX_ISOLATED_CRASHES} of them with nothing \
         else to do; look at the document, and at memory and logs of the workers",
        MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES
    )
}

/// What is said of a task whose work broke off too often.
fn broke_off() -> String {
    format!(
        "work on this document broke off {} times, {MAX_ISOLATED_CRASHES} of them with nothing else at work, at last because \
         of a defect of the program; the log says where (\"a stage panicked\"): report that, with the document if you \
         can",
        MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES
    )
}

/// What the operator decides for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Tasks of one tenant leased at a time in a stage; `None`: as many as there are.
    pub in_flight_per_tenant: Option<u32>,
    /// When no worker was heard for longer than this, the queue was away. More than workers need between two reports,
    /// less than what is left of a lease then.
    pub outage_threshold: Duration,
    /// Dead letters that a stage keeps; the oldest go first.
    pub dead_letters: u32,
    /// How long a dead letter is kept.
    pub dead_letter_age: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            in_flight_per_tenant: None,
            outage_threshold: Duration::from_secs(30),
            dead_letters: 10_000,
            dead_letter_age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// How much is where in one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// In lists, also those that must run alone.
    pub waiting: u64,
    /// Before the stage, because it drains.
    pub held: u64,
    /// Until they are due.
    pub delayed: u64,
    /// Being worked on.
    pub leased: u64,
    /// For the operator.
    pub dead: u64,
    /// Bytes of what waits.
    pub bytes: u64,
    /// How long the longest waiting of those has waited that are their tenants' next.
    pub oldest: Duration,
    /// Left to workers of a newer version, which has written them.
    pub newer: u64,
}

/// One side of [`Backlog`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogSize {
    /// Documents in the queue, leased ones included, dead ones not.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest: Duration,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Of the tenant.
    pub tenant: BacklogSize,
    /// Of everybody.
    pub all: BacklogSize,
}

/// Names a dead letter within its stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeadLetterId(pub String);

/// A task put aside.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadLetterId,
    /// The task as it was; `None` when the message could not be read.
    pub task: Option<Task>,
    /// The message as found, when it could not be read.
    pub raw: Option<Vec<u8>>,
    /// Why.
    pub reason: Reason,
    /// When it died, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Who.
    pub consumer: Consumer,
    /// Which stages it serves.
    pub stages: Vec<Stage>,
    /// Tasks it runs at a time.
    pub slots: u32,
    /// Tasks it runs now.
    pub busy: u32,
    /// Tasks it has brought to an end, and those that failed, since its start.
    pub done: (u64, u64),
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// Its program's version.
    pub version: String,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// Out of reach; nothing is known of whether the step happened. Later may help.
    Unavailable(String),
    /// The queue's disk or memory is full: nothing was done.
    Full(String),
    /// Written by a newer version of the program.
    TooNew(String),
    /// A defect of ours; the message is for the log.
    Internal(String),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(message)
            | Self::Full(message)
            | Self::TooNew(message)
            | Self::Internal(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for QueueError {}
