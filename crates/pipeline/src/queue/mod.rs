//! The queue of tasks: its traits and its two implementations, [`SqliteQueue`] for one host and [`RedisQueue`] for
//! several. Each method is one atomic step. A caller may repeat a method after its response was lost.
//!
//! At any moment a task is in exactly one state: waiting (in its tenant's queue of a stage), waiting to run alone, held
//! (before a stage that drains), delayed, leased, or a dead letter. Each stage has queues of its own, so one tenant's
//! ten thousand documents never stand before another tenant's five, at any stage. A lease is fenced by its token: a
//! worker that has lost a lease cannot settle it.

mod dead_letter;
mod error;
mod lease;
mod notifier;
mod options;
mod record;
mod redis;
mod sqlite;
mod status;
mod traits;

pub use dead_letter::{DeadLetter, DeadLetterId};
pub use error::QueueError;
pub use lease::{
    Consumer, Lease, LeaseBatch, LeaseRequest, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Outcome,
    SettleResult,
};
pub use options::QueueOptions;
pub use redis::{RedisConfig, RedisQueue};
pub use sqlite::SqliteQueue;
pub use status::{Backlog, BacklogSize, Depth, StageMode, WorkerStatus};
pub use traits::{DeadLetterStore, Op, Queue, QueueAdmin, TaskProducer, WorkerQueue};

use lease::{MAX_CRASHES, MAX_FAIRNESS_CREDIT, crash_message, panic_message};
