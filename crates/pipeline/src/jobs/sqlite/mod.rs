//! The job store of one host: one SQLite file in the state directory, which several processes share.
//!
//! - `file` opens it and says what stands in it; `writer` is the one thread of a process that writes;
//! - [`submit`] opens, fills and starts jobs; [`progress`] takes the results of stages;
//! - [`change`] is what people do to jobs: cancel, retry, skip, delete, and what time does;
//! - [`read`] looks.

mod change;
mod file;
mod progress;
mod read;
mod submit;
mod writer;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use embeddery_database::sqlite::ReaderPool;
use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use super::{
    ChunkSpan, DocumentRow, DocumentState, Edit, End, EndedJobs, Job, JobError, JobOp, JobStore, Loaded,
    NewDocument, NewJob, Note, Opened, Page, Put, Status, Unfinished, Vectors,
};
use crate::{JobId, Priority, TaskId};
use writer::{Durability, Writer};

/// Where jobs are kept.
#[derive(Clone, Debug)]
pub struct SqliteJobsConfig {
    /// The file; made when it is not there.
    pub path: PathBuf,
    /// New jobs are refused when the disk has less free than this.
    pub min_free_bytes: u64,
}

/// Reads at a time, and so the most connections and threads they take: a disk and a few cores do no more.
const MOST_READERS: usize = 8;

/// The job store of one host.
pub struct SqliteJobs {
    writer: Writer,
    readers: Arc<ReaderPool>,
    reading: Arc<Semaphore>,
    ended: EndedJobs,
    config: SqliteJobsConfig,
}

impl SqliteJobs {
    /// Opens the file, brings it to the present schema, starts its writer.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for an operator.
    pub fn open(config: SqliteJobsConfig) -> Result<Self, String> {
        let writer = Writer::start(file::open(&config.path)?)?;
        let readers = Arc::new(file::readers(&config.path));
        let reading = Arc::new(Semaphore::new(MOST_READERS));
        Ok(Self { writer, readers, reading, ended: EndedJobs::default(), config })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        // Who waits here holds neither a thread nor a connection.
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

    /// Writes what a person was promised.
    async fn promise<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        self.writer.run(Durability::Durable, work).await
    }

    /// Writes something of each, all or none; what would only be done again.
    async fn write_each<R: Send + 'static, T: Send + 'static>(
        &self,
        each: Vec<R>,
        write: fn(&Connection, &R) -> Result<T, JobError>,
    ) -> Result<Vec<T>, JobError> {
        if each.is_empty() {
            return Ok(Vec::new());
        }
        self.repeatable(move |db| each.iter().map(|one| write(db, one)).collect()).await
    }

    /// Writes what would only be done again.
    async fn repeatable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        self.writer.run(Durability::Relaxed, work).await
    }

    /// Repeats a step that does at most so much at a time, until it finds nothing: no step holds the file for long.
    async fn in_steps(
        &self,
        step: impl Fn(&Connection) -> Result<u64, JobError> + Clone + Send + 'static,
    ) -> Result<u64, JobError> {
        let mut all = 0;
        loop {
            match self.repeatable(step.clone()).await? {
                0 => return Ok(all),
                some => all += some,
            }
        }
    }
}

impl JobStore for SqliteJobs {
    fn open(&self, job: NewJob) -> JobOp<'_, Opened> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            self.repeatable(move |db| submit::open(db, &job)).await
        })
    }

    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            // Packing takes longer than writing: not in the writer's thread.
            let packed = tokio::task::spawn_blocking(move || submit::pack(documents))
                .await
                .map_err(|error| JobError::Internal(format!("packing texts ended early: {error}")))?;
            self.repeatable(move |db| submit::append(db, job, &packed?)).await
        })
    }

    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, Opened> {
        Box::pin(async move {
            let opened = self.promise(move |db| submit::start(db, job, &body_hash)).await?;
            if opened != Opened::New(job) {
                // What was opened for nothing goes; a crash here leaves it to the sweep.
                self.in_steps(move |db| change::drop_open(db, job)).await?;
            }
            Ok(opened)
        })
    }

    fn discard(&self, job: JobId) -> JobOp<'_, ()> {
        Box::pin(async move { self.in_steps(move |db| change::drop_open(db, job)).await.map(drop) })
    }

    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| read::job(db, &tenant, job)))
    }

    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| read::jobs(db, &tenant, page)))
    }

    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>> {
        Box::pin(self.read(move |db| read::documents(db, job, page)))
    }

    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>> {
        Box::pin(self.read(move |db| Ok(read::load(db, &tasks))))
    }

    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<Put>> {
        Box::pin(self.write_each(results, |db, (task, chunks)| progress::put_chunks(db, *task, chunks)))
    }

    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<Put>> {
        Box::pin(self.write_each(results, |db, (task, vectors)| progress::put_vectors(db, *task, vectors)))
    }

    fn finish(&self, ends: Vec<(TaskId, End)>) -> JobOp<'_, Vec<Put>> {
        Box::pin(async move {
            let finished = self.write_each(ends, progress::finish).await?.into_iter();
            Ok(finished.map(|(put, ended)| (self.ended.count(ended), put).1).collect())
        })
    }

    fn note(&self, notes: Vec<Note>) -> JobOp<'_, ()> {
        Box::pin(async move { self.write_each(notes, progress::note).await.map(drop) })
    }

    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let ended = self.promise(move |db| change::cancel(db, &tenant, job)).await?;
            self.ended.count(ended);
            self.in_steps(move |db| change::drop_content(db, job)).await?;
            Ok(ended.is_some())
        })
    }

    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>> {
        let tenant = tenant.to_owned();
        Box::pin(self.promise(move |db| change::retry(db, &tenant, (job, None))))
    }

    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        of: (TaskId, u64),
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>> {
        let tenant = tenant.to_owned();
        Box::pin(self.promise(move |db| change::retry_document(db, &tenant, of, &edit)))
    }

    fn skip(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(async move {
            let (known, ended) = self.promise(move |db| change::skip(db, job)).await?;
            self.ended.count(ended);
            self.in_steps(move |db| change::drop_content(db, job)).await?;
            Ok(known)
        })
    }

    fn skipped(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(self.read(move |db| read::skipped(db, job)))
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool> {
        Box::pin(self.promise(move |db| change::reprioritize(db, job, priority)))
    }

    fn by_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>> {
        let key = idempotency_key.to_owned();
        Box::pin(self.read(move |db| read::by_key(db, &key)))
    }

    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| submit::unfinished_jobs(db, &tenant)))
    }

    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>> {
        Box::pin(self.read(move |db| read::unfinished(db, before(untouched), after, limit)))
    }

    fn claim(&self, what: &'static str, period: Duration) -> JobOp<'_, bool> {
        let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        Box::pin(self.repeatable(move |db| progress::claim(db, what, period)))
    }

    fn sweep(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64> {
        Box::pin(async move {
            let (ended, abandoned) = (before(ended), before(abandoned));
            let past = self.read(move |db| read::past(db, ended, abandoned)).await?;
            if self.in_steps(move |db| change::sweep_step(db, ended, abandoned)).await? > 0 {
                // What was freed goes back to the disk, a little at a time.
                self.in_steps(change::shrink_step).await?;
            }
            Ok(past)
        })
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let jobs = self.promise({
                let tenant = tenant.clone();
                move |db| change::close_tenant(db, &tenant)
            });
            let jobs = jobs.await?;
            self.in_steps(move |db| change::delete_step(db, &tenant)).await?;
            Ok(jobs)
        })
    }

    fn ended(&self) -> &EndedJobs {
        &self.ended
    }

    fn health(&self) -> JobOp<'_, ()> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            self.read(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
        })
    }
}

/// A moment so long ago, in milliseconds since 1970.
fn before(age: Duration) -> i64 {
    now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970, by the clock of the host: all who share the file share it.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The keys of a job's documents: from, up to.
const fn keys(number: i64) -> (i64, i64) {
    (number << 32, ((number + 1) << 32) - 1)
}

const fn key(number: i64, item: u32) -> i64 {
    (number << 32) | item as i64
}

const fn item(key: i64) -> u32 {
    (key & 0xffff_ffff) as u32
}

/// A database's failure, as the store says it.
impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Full("the disk of the jobs is full; make room".into()),
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::Unavailable("another process writes to the jobs; try again".into())
            }
            Some(ReadOnly | SystemIoFailure) => {
                tracing::error!(%error, "the jobs cannot be read or written");
                Self::Unavailable(
                    "the disk of the jobs refuses to read or write; the server's log knows more".into(),
                )
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}
