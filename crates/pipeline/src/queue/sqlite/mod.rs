//! The queue of one host: an SQLite file that several processes may share.
//!
//! A task is a row, and its state is a column, so every transition is one statement. A tenant's queue at a stage is a
//! row that counts the tenant's tasks there and holds the tag that says when its turn is (start-time fair queueing).

mod admin;
mod dead_letters;
mod file;
mod lease;
mod producer;
mod settle;
mod task_row;
mod tenant_queue;
mod transitions;
mod worker;
mod writer;

use std::{path::Path, sync::atomic::AtomicBool, time::Duration};

use super::notifier::StageNotifier;
use crate::{QueueError, QueueOptions, Stage};
use writer::Writer;

/// The queue of one host.
pub struct SqliteQueue {
    writer: Writer,
    notifier: StageNotifier,
    options: QueueOptions,
    /// Whether the last lease at each stage found nothing. Then the next one reads before it writes.
    quiet: [AtomicBool; 3],
}

impl SqliteQueue {
    /// Opens the file; creates it if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for the operator.
    pub fn open(path: &Path, options: QueueOptions) -> Result<Self, QueueError> {
        let writer = Writer::start(file::open(path)?)?;
        Ok(Self { writer, notifier: StageNotifier::default(), options, quiet: Default::default() })
    }

    fn notify_all(&self) {
        Stage::ALL.into_iter().for_each(|stage| self.notifier.notify(stage));
    }
}

/// The time since `since_ms`; zero when it is `None` or in the future.
fn age(db: &writer::Db<'_>, since_ms: Option<i64>) -> Duration {
    Duration::from_millis(since_ms.map_or(0, |since| db.now.saturating_sub(since)).max(0).unsigned_abs())
}
