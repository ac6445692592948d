//! Leases: what a worker requests, what it gets, and what it reports when it ends one.

use std::time::Duration;

use crate::{Reason, Stage, Task};

/// The id of one start of one worker. It is never reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumer(pub String);

/// A worker's request for tasks.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// The stage of the tasks.
    pub stage: Stage,
    /// The worker.
    pub consumer: &'a Consumer,
    /// Maximum number of tasks: the worker's free slots.
    pub max_tasks: usize,
    /// How long a lease lasts until it is renewed.
    pub duration: Duration,
    /// Whether the worker runs nothing else. Only an idle worker gets a task that must run alone.
    pub idle: bool,
}

/// The response to a [`LeaseRequest`].
#[derive(Clone, Debug, Default)]
pub struct LeaseBatch {
    /// The leases.
    pub leases: Vec<Lease>,
    /// A task that must run alone is waiting, and this worker is to become idle and send another request.
    pub drain_for_exclusive: bool,
}

/// A worker's right to work on a task for a limited time.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The task.
    pub task: Task,
    /// The worker that holds the lease.
    pub consumer: Consumer,
    /// The fence. It is different for every lease of a task.
    pub token: String,
    /// Whether the process must run nothing else meanwhile, because the task may have caused
    /// [`MAX_SHARED_CRASHES`]. An exclusive lease is the only one in its batch.
    pub exclusive: bool,
}

/// The end of a lease, as the worker reports it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The task goes to the next stage. After the last stage it is done.
    Next {
        /// Size of what the next stage reads.
        bytes: u64,
    },
    /// The document needs no more work: it is skipped, cancelled, or failed without a dead letter.
    Finished,
    /// The task is tried again after a delay.
    RetryAfter {
        /// The delay.
        after: Duration,
        /// Whether this was an attempt. A failure of the task itself is one; a provider's outage is not.
        charged: bool,
    },
    /// The worker stops: the task goes back to the front of its queue at once, uncharged.
    Release,
    /// The work broke off in a panic. It counts as a crash, and the task is tried again after a delay.
    Crashed {
        /// The delay.
        after: Duration,
    },
    /// The task becomes a dead letter.
    DeadLetter(Reason),
}

/// What the queue did with an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleResult {
    /// The outcome was applied.
    Done,
    /// The worker no longer held the lease. The outcome was ignored, and another worker has the task.
    Lost,
    /// The job is cancelled. The task was removed.
    Cancelled,
}

/// After this many crashes a task runs alone.
pub const MAX_SHARED_CRASHES: u32 = 2;

/// After this many more crashes, alone, a task becomes a dead letter with the reason `worker_died`.
pub const MAX_ISOLATED_CRASHES: u32 = 3;

/// Crashes after which a task becomes a dead letter.
pub(super) const MAX_CRASHES: u32 = MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES;

/// Maximum credit from refunded turns, in units of cost: about a batch. It bounds how far refunds put a tenant ahead
/// of others.
pub(super) const MAX_FAIRNESS_CREDIT: i64 = 1 << 19;

/// The dead letter's message for a task whose workers crashed too often.
pub(super) fn crash_message() -> String {
    format!(
        "{MAX_CRASHES} workers ended, or stopped responding, while they had this document, {MAX_ISOLATED_CRASHES} of them with \
         nothing else to do; look at the document, and at memory and logs of the workers"
    )
}

/// The dead letter's message for a task whose work panicked too often.
pub(super) fn panic_message() -> String {
    format!(
        "work on this document broke off {MAX_CRASHES} times, {MAX_ISOLATED_CRASHES} of them with nothing else running, the last \
         time because of a defect of the program; the log says where (\"a stage panicked\"): report that, with the \
         document if you can"
    )
}
