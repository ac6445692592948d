//! The one thread that has the queue's file open. All reads and writes run there.

use embeddery_database::sqlite::{Durability, GroupCommitWriter, WriterError};
use rusqlite::{Connection, ErrorCode};

use crate::QueueError;

/// The file inside a transaction, and the time.
pub(super) struct Db<'a> {
    pub(super) sql: &'a Connection,
    pub(super) now: i64,
}

pub(super) struct Writer(GroupCommitWriter<QueueError>);

impl Writer {
    pub(super) fn start(file: Connection) -> Result<Self, QueueError> {
        GroupCommitWriter::start(file).map(Self).map_err(QueueError::Unavailable)
    }

    /// Does `work` in a transaction and waits until it is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.0
            .run(Durability::Relaxed, |sql| Ok(work(&Db { sql, now: crate::clock::now_ms().cast_signed() })?))
            .await
    }

    /// Does `work`, which only reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.0
            .run(Durability::ReadOnly, |sql| {
                Ok(work(&Db { sql, now: crate::clock::now_ms().cast_signed() })?)
            })
            .await
    }
}

impl WriterError for QueueError {
    const FILE: &'static str = "queue";

    fn rolled_back(message: String) -> Self {
        Self::Full(message)
    }

    fn closed(message: String) -> Self {
        Self::Internal(message)
    }
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        let text = format!("the queue's file: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(format!("{text}; free space on its disk")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unavailable(format!("{text}: another process is writing"))
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase,
            ) => Self::Unavailable(text),
            _ => Self::Internal(text),
        }
    }
}
