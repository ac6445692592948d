//! The job store of several hosts: in the PostgreSQL that has the collections. Counts are those of the rows, counted
//! when somebody asks, so that workers on one job never wait for each other. Time is the database's.
//!
//! - [`schema`] is what stands in the database;
//! - [`submit`] opens, fills and starts jobs; [`progress`] takes the results of stages;
//! - [`transitions`] is what people do to jobs, and what time does; [`read`] looks.

mod progress;
mod read;
mod schema;
mod submit;
mod transitions;

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Client, Transaction};
use embeddery_store::{Connections, PostgresConfig, StoreError, StoreErrorKind};
use tokio::sync::OnceCell;

use super::{
    ChunkSpan, DocumentOutcome, DocumentRow, DocumentState, Edit, Job, JobError, JobMetrics, JobOp, JobStore,
    Loaded, NewDocument, NewJob, OpenResult, Page, RetryNote, Status, Unfinished, Vectors, WriteResult,
};
use crate::{JobId, Priority, TaskId};

/// The job store of several hosts.
pub struct PostgresJobs {
    connections: Connections,
    /// Filled once the schema is there.
    ready: OnceCell<()>,
    ended: JobMetrics,
}

/// For whom a transaction sees rows.
#[derive(Clone, Copy)]
enum For<'a> {
    Tenant(&'a str),
    All,
}

impl PostgresJobs {
    /// A store over a database, which need not be reachable yet.
    ///
    /// # Errors
    /// When the URL cannot be understood.
    pub fn new(config: &PostgresConfig) -> Result<Self, JobError> {
        Ok(Self {
            connections: Connections::new(config)?,
            ready: OnceCell::new(),
            ended: JobMetrics::default(),
        })
    }

    async fn client(&self) -> Result<Client, JobError> {
        let mut client = self.connections.client().await?;
        self.ready.get_or_try_init(|| schema::migrate(&mut client)).await?;
        Ok(client)
    }

    async fn begin<'c>(&self, client: &'c mut Client, whom: For<'_>) -> Result<Transaction<'c>, JobError> {
        let tenant = match whom {
            For::Tenant(tenant) => tenant,
            For::All => "",
        };
        let tx = self.connections.begin(client, tenant).await?;
        if matches!(whom, For::All) {
            let all = tx.prepare_cached("SELECT set_config('embeddery.all_tenants', 'on', true)").await?;
            tx.execute(&all, &[]).await?;
        }
        Ok(tx)
    }
}

impl JobStore for PostgresJobs {
    fn open(&self, job: NewJob) -> JobOp<'_, OpenResult> {
        Box::pin(submit::open(self, job))
    }

    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()> {
        Box::pin(submit::append(self, job, documents))
    }

    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, OpenResult> {
        Box::pin(submit::start(self, job, body_hash))
    }

    fn discard(&self, job: JobId) -> JobOp<'_, ()> {
        Box::pin(transitions::discard(self, job))
    }

    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>> {
        Box::pin(read::job(self, tenant, job))
    }

    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>> {
        Box::pin(read::jobs(self, tenant, page))
    }

    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>> {
        Box::pin(read::documents(self, job, page))
    }

    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>> {
        Box::pin(read::load(self, tasks))
    }

    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(progress::put_chunks(self, results))
    }

    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(progress::put_vectors(self, results))
    }

    fn finish(&self, ends: Vec<(TaskId, DocumentOutcome)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(progress::finish(self, ends))
    }

    fn record_retry(&self, notes: Vec<RetryNote>) -> JobOp<'_, ()> {
        Box::pin(progress::note(self, notes))
    }

    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool> {
        Box::pin(transitions::cancel(self, tenant, job))
    }

    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>> {
        Box::pin(transitions::retry(self, tenant, job, None))
    }

    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        (task, entered_ms): (TaskId, u64),
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>> {
        Box::pin(async move {
            let only = Some(((task.item, entered_ms), &edit));
            Ok(transitions::retry(self, tenant, task.job, only).await?.pop())
        })
    }

    fn skip(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(transitions::skip(self, job))
    }

    fn skipped(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(read::skipped(self, job))
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool> {
        Box::pin(transitions::reprioritize(self, job, priority))
    }

    fn find_by_idempotency_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>> {
        Box::pin(read::by_key(self, idempotency_key))
    }

    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        Box::pin(read::unfinished_jobs(self, tenant))
    }

    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>> {
        Box::pin(read::unfinished(self, untouched, after, limit))
    }

    fn claim_period(&self, what: &'static str, period: Duration) -> JobOp<'_, bool> {
        Box::pin(progress::claim(self, what, period))
    }

    fn purge_expired(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64> {
        Box::pin(transitions::sweep(self, ended, abandoned))
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        Box::pin(transitions::delete_tenant(self, tenant))
    }

    fn ended(&self) -> &JobMetrics {
        &self.ended
    }

    fn health(&self) -> JobOp<'_, ()> {
        Box::pin(async { self.client().await.map(drop) })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

fn place(item: u32) -> Result<i32, JobError> {
    i32::try_from(item).map_err(|_| JobError::Internal(format!("a job has no document {item}")))
}

fn text(value: Option<&str>) -> Option<Arc<str>> {
    value.map(Arc::from)
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        let message = error.message.replace("of the collections", "of the jobs");
        match error.kind {
            StoreErrorKind::Unavailable { .. } => Self::Unavailable(message),
            StoreErrorKind::Full => Self::Full(message),
            StoreErrorKind::TooNew => Self::TooNew(message),
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for JobError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}
