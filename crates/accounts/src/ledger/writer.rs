//! Writes to the ledger: on the request's own thread if the file is free, because a commit takes less time than the way
//! to another thread and back; otherwise in a group commit. A failed write is logged, and requests are answered without
//! it.

use std::time::Duration;

use embeddery_database::sqlite::{Durability, GroupCommitWriter, InlineCommits, Maintenance, WriterError};
use jiff::Timestamp;
use rusqlite::Connection;
use thiserror::Error;

use super::counters;

/// Minimum time between two deletions of expired rows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// The writer of the ledger's file.
pub(super) struct Writer(GroupCommitWriter<WriteError>);

/// Why something was not written.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
struct WriteError(String);

impl WriterError for WriteError {
    const FILE: &'static str = "usage";

    fn rolled_back(message: String) -> Self {
        Self(message)
    }

    fn closed(message: String) -> Self {
        Self(message)
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        inline: InlineCommits,
        retention_days: u32,
    ) -> Result<Self, String> {
        let sweep = move |file: &Connection| counters::sweep(file, Timestamp::now(), retention_days);
        let maintenance = Maintenance { interval: SWEEP_INTERVAL, run: Box::new(sweep) };
        GroupCommitWriter::start_with(connection, Some(inline), Some(maintenance)).map(Self)
    }

    /// Runs `work` and waits until it is committed. An error is logged.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ()> {
        let result = self.0.run(Durability::Relaxed, |file| Ok(work(file)?)).await;
        result.map_err(|error| {
            tracing::error!(%error, "usage could not be written; requests are answered without it");
        })
    }

    /// Runs `work` some time soon.
    pub(super) fn run_later(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static) {
        self.0.run_later(Durability::Relaxed, |file| Ok(work(file)?));
    }
}
