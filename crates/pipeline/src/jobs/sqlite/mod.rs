//! The job store of one host: one SQLite file in the state directory, which several processes share.
//!
//! - `file` has the schema and opens the file; `writer` is the one thread of a process that writes;
//! - [`intake`] opens, fills and starts jobs; [`progress`] loads documents and writes the results of stages;
//! - [`transitions`] cancels, retries and skips; [`maintenance`] removes what is no longer needed;
//! - [`read`] reads jobs and documents.

mod file;
mod intake;
mod maintenance;
mod progress;
mod read;
mod transitions;
mod writer;

use embeddery_core::to_ms;
use std::{path::PathBuf, sync::Arc, time::Duration};

use embeddery_database::sqlite::ReaderPool;
use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use super::{JobError, JobMetrics};
use writer::{Durability, Writer};

/// Where jobs are stored.
#[derive(Clone, Debug)]
pub struct SqliteJobsConfig {
    /// The file; created if it does not exist.
    pub path: PathBuf,
    /// New jobs are refused when the disk has fewer free bytes than this.
    pub min_free_bytes: u64,
}

/// Maximum concurrent reads, and so the connections and threads that they use. A disk and a few cores do no more.
const MAX_READERS: usize = 8;

/// The job store of one host.
pub struct SqliteJobs {
    writer: Writer,
    readers: Arc<ReaderPool>,
    reading: Arc<Semaphore>,
    metrics: JobMetrics,
    config: SqliteJobsConfig,
}

impl SqliteJobs {
    /// Opens the file, migrates it and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for the operator.
    pub fn open(config: SqliteJobsConfig) -> Result<Self, String> {
        let writer = Writer::start(file::open(&config.path)?)?;
        let readers = Arc::new(file::readers(&config.path));
        let reading = Arc::new(Semaphore::new(MAX_READERS));
        Ok(Self { writer, readers, reading, metrics: JobMetrics::default(), config })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        // A read that waits here holds neither a thread nor a connection.
        let closed = |_| JobError::Unavailable("the jobs' file is closed; the server stops".into());
        let permit = Arc::clone(&self.reading).acquire_owned().await.map_err(closed)?;
        let readers = Arc::clone(&self.readers);
        let read = move || {
            let _permit = permit;
            readers.read(work)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| JobError::Internal(format!("a database task ended early: {error}")))?
    }

    /// Writes what the response promises to the caller: the commit is on disk when this returns.
    async fn write_durable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        self.writer.run(Durability::Durable, work).await
    }

    /// Writes each item, all or none. A power cut may lose the last of them; then their stages run again.
    async fn write_each<R: Send + 'static, T: Send + 'static>(
        &self,
        items: Vec<R>,
        write: fn(&Connection, &R) -> Result<T, JobError>,
    ) -> Result<Vec<T>, JobError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.write_relaxed(move |db| items.iter().map(|item| write(db, item)).collect()).await
    }

    /// Writes what is only done again after a power cut has lost it.
    async fn write_relaxed<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        self.writer.run(Durability::Relaxed, work).await
    }

    /// Repeats a step until it changes nothing, and returns the sum of its changes. A step is limited in size, so that
    /// none holds the file for long.
    async fn in_steps(
        &self,
        step: impl Fn(&Connection) -> Result<u64, JobError> + Clone + Send + 'static,
    ) -> Result<u64, JobError> {
        let mut total = 0;
        loop {
            match self.write_relaxed(step.clone()).await? {
                0 => return Ok(total),
                changed => total += changed,
            }
        }
    }
}

/// The moment `age` ago, in milliseconds since 1970.
fn before(age: Duration) -> i64 {
    now().saturating_sub(to_ms(age).cast_signed())
}

/// Milliseconds since 1970, by the clock of the host, which all processes that share the file have in common.
fn now() -> i64 {
    i64::try_from(crate::clock::now_ms()).unwrap_or(i64::MAX)
}

/// The first and the last key that documents of a job can have.
const fn keys(number: i64) -> (i64, i64) {
    (number << 32, ((number + 1) << 32) - 1)
}

/// The key of a document.
const fn key(number: i64, item: u32) -> i64 {
    (number << 32) | item as i64
}

/// The position of a document in its job.
const fn item(key: i64) -> u32 {
    (key & 0xffff_ffff) as u32
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Full("the disk of the jobs is full; free space on it".into()),
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::Unavailable("another process is writing to the jobs; try again".into())
            }
            Some(ReadOnly | SystemIoFailure) => {
                tracing::error!(%error, "the jobs cannot be read or written");
                Self::Unavailable(
                    "the disk of the jobs refuses to read or write; see the server's log".into(),
                )
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}
