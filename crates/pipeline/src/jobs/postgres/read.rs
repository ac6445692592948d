//! Reads jobs and documents.

use embeddery_core::to_ms;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresJobs, Scope,
    maintenance::settle,
    progress::{Columns, task},
    to_item,
};
use crate::{
    DocumentRow, DocumentState, Job, JobError, JobId, JobOp, JobReader, JobSpec, LoadedDocument, NewDocument,
    Status, TaskId, Unfinished,
    jobs::{
        Loaded, Page,
        codec::{self, STATES, state_number, status_number, unreadable},
    },
};

impl JobReader for PostgresJobs {
    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>> {
        Box::pin(find_job(self, tenant, job))
    }

    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>> {
        Box::pin(jobs(self, tenant, page))
    }

    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>> {
        Box::pin(documents(self, job, page))
    }

    fn find_by_idempotency_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>> {
        Box::pin(async move {
            let rest = "idempotency_key = $1 ORDER BY id DESC LIMIT 100";
            select(self, Scope::All, rest, &[&idempotency_key]).await
        })
    }

    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        Box::pin(unfinished_jobs(self, tenant))
    }

    fn skipped(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(skipped(self, job))
    }
}

/// The counts of a job, as columns.
pub(super) const COUNTED: &str = "
    coalesce(sum(chunks), 0)::bigint AS chunks,
    coalesce(sum(chunks) FILTER (WHERE state = 3), 0)::bigint AS stored_chunks,
    count(*) FILTER (WHERE state >= 3 AND touched_at > embeddery.now_ms() - 60000) AS last_minute,
    count(*) FILTER (WHERE state = 0) AS d0, count(*) FILTER (WHERE state = 1) AS d1,
    count(*) FILTER (WHERE state = 2) AS d2, count(*) FILTER (WHERE state = 3) AS d3,
    count(*) FILTER (WHERE state = 4) AS d4, count(*) FILTER (WHERE state = 5) AS d5,
    count(*) FILTER (WHERE state = 6) AS d6, count(*) FILTER (WHERE state = 7) AS d7";

/// A query of jobs and their counts. A running job's counts are counted from its documents; an ended job's are stored.
fn jobs_where(rest: &str) -> String {
    format!(
        "SELECT id, tenant, plan, priority, status, submitted_at, started_at, ended_at, idempotency_key,
                coalesce(counts, ARRAY[counted.chunks, stored_chunks, last_minute, d0, d1, d2, d3, d4, d5, d6, d7])
         FROM embeddery.jobs, LATERAL (
             SELECT {COUNTED} FROM embeddery.job_documents WHERE job = jobs.id AND jobs.counts IS NULL) AS counted
         WHERE status >= 0 AND {rest}"
    )
}

async fn find_job(store: &PostgresJobs, tenant: &str, job: JobId) -> Result<Option<Job>, JobError> {
    let rest = "id = $1 AND tenant = $2";
    let find = async || {
        let mut found = select(store, Scope::Tenant(tenant), rest, &[&job.0, &tenant]).await?;
        Ok::<_, JobError>(found.pop())
    };
    let found = find().await?;
    let has_unfinished = |job: &Job| STATES[..3].iter().any(|state| job.documents[state] > 0);
    match found {
        // A process that crashes between the end of the last document and the end of the job leaves such a job.
        Some(job) if job.ended_at_ms.is_none() && !has_unfinished(&job) => {
            settle(store, &mut store.client().await?, job.id).await?;
            find().await
        }
        found => Ok(found),
    }
}

async fn jobs(store: &PostgresJobs, tenant: &str, page: Page<Status, JobId>) -> Result<Vec<Job>, JobError> {
    let after = page.after.map_or(uuid::Uuid::max(), |job| job.0);
    let status = page.state.map(|status| status_number(status) as i16);
    let rest = "tenant = $1 AND id < $2 AND ($3::smallint IS NULL OR status = $3) ORDER BY id DESC LIMIT $4";
    select(store, Scope::Tenant(tenant), rest, &[&tenant, &after, &status, &(page.limit as i64)]).await
}

async fn select(
    store: &PostgresJobs,
    scope: Scope<'_>,
    rest: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Job>, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, scope).await?;
    let statement = tx.prepare_cached(&jobs_where(rest)).await?;
    tx.query(&statement, parameters).await?.iter().map(read_job).collect()
}

fn read_job(row: &Row) -> Result<Job, JobError> {
    let number = |column: usize| row.get::<_, i64>(column).max(0).unsigned_abs();
    let time = |column: usize| row.get::<_, Option<i64>>(column).map(|time| time.max(0).unsigned_abs());
    let counts: Vec<i64> = row.get(9);
    let mut counts = counts.into_iter().map(|count| count.max(0).unsigned_abs());
    let mut next = || counts.next().unwrap_or(0);
    let (chunks, stored_chunks, ended_last_minute) = (next(), next(), next());
    let documents: BTreeMap<_, _> = STATES.into_iter().map(|state| (state, next())).collect();
    Ok(Job {
        id: JobId(row.get(0)),
        tenant: Arc::from(row.get::<_, &str>(1)),
        plan: codec::read_plan(row.get(2))?,
        priority: codec::priority(row.get::<_, i16>(3).into()),
        status: codec::status(row.get::<_, i16>(4).into())?,
        documents,
        chunks,
        stored_chunks,
        submitted_at_ms: number(5),
        started_at_ms: time(6),
        ended_at_ms: time(7),
        ended_last_minute,
        idempotency_key: row.get(8),
    })
}

async fn skipped(store: &PostgresJobs, job: JobId) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let found =
        tx.query_opt("SELECT skipped FROM embeddery.jobs WHERE id = $1 AND status >= 0", &[&job.0]).await?;
    Ok(found.is_some_and(|row| row.get(0)))
}

async fn unfinished_jobs(store: &PostgresJobs, tenant: &str) -> Result<u64, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::Tenant(tenant)).await?;
    let count = "SELECT count(*) FROM embeddery.jobs WHERE tenant = $1 AND status IN (0, 1)";
    Ok(tx.query_one(count, &[&tenant]).await?.get::<_, i64>(0).max(0).unsigned_abs())
}

async fn documents(
    store: &PostgresJobs,
    job: JobId,
    page: Page<DocumentState, u32>,
) -> Result<Vec<DocumentRow>, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let after = page.after.map_or(Ok(-1), to_item)?;
    let state = page.state.map(|state| state_number(state) as i16);
    let statement = tx
        .prepare_cached(
            "SELECT item, document.id, state, chunks, code, message, attempts, again_at
             FROM embeddery.job_documents AS document JOIN embeddery.jobs ON jobs.id = job
             WHERE job = $1 AND status >= 0 AND item > $2 AND ($3::smallint IS NULL OR state = $3)
             ORDER BY item LIMIT $4",
        )
        .await?;
    let rows = tx.query(&statement, &[&job.0, &after, &state, &(page.limit as i64)]).await?;
    let read = |row: &Row| {
        Ok(DocumentRow {
            item: row.get::<_, i32>(0).unsigned_abs(),
            id: row.get(1),
            state: codec::state(row.get::<_, i16>(2).into())?,
            chunks: row.get::<_, Option<i64>>(3).map(i64::unsigned_abs),
            reason: codec::reason(row.get(4), row.get(5)),
            attempts: row.get::<_, i32>(6).unsigned_abs(),
            retry_at_ms: row.get::<_, Option<i64>>(7).map(i64::unsigned_abs),
        })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn load(store: &PostgresJobs, tasks: Vec<TaskId>) -> Result<Vec<Loaded>, JobError> {
    let wanted = Columns::from_tasks(tasks.iter().copied())?;
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let statement = tx
        .prepare_cached(
            "SELECT job, item, jobs.tenant, plan, state, document.id, text, metadata, content_type, spans,
                    vectors_head, vectors
             FROM unnest($1::uuid[], $2::int[]) AS wanted (job, item)
                  JOIN embeddery.job_documents AS document USING (job, item)
                  JOIN embeddery.jobs ON jobs.id = job LEFT JOIN embeddery.job_contents USING (job, item)
             WHERE status >= 0",
        )
        .await?;
    let rows = tx.query(&statement, &[&wanted.jobs, &wanted.items]).await?;
    let mut plans = HashMap::new();
    let mut found: HashMap<TaskId, Loaded> = rows
        .iter()
        .map(|row| {
            let task = task(row);
            let plan =
                plans.entry(task.job).or_insert_with(|| codec::read_plan(row.get(3)).map(Arc::new)).clone();
            (task, plan.and_then(|plan| read_document(row, plan)).map(Some))
        })
        .collect();
    Ok(tasks.iter().map(|task| found.remove(task).unwrap_or(Ok(None))).collect())
}

fn read_document(row: &Row, plan: Arc<JobSpec>) -> Result<LoadedDocument, JobError> {
    let bytes: Option<Vec<u8>> = row.get(6);
    let (metadata, spans): (Option<&str>, Option<&str>) = (row.get(7), row.get(9));
    let vectors = match (row.get::<_, Option<&str>>(10), row.get::<_, Option<&[u8]>>(11)) {
        (Some(head), Some(data)) => Some(codec::read_vectors(head, data)?),
        _ => None,
    };
    Ok(LoadedDocument {
        tenant: Arc::from(row.get::<_, &str>(2)),
        plan,
        state: codec::state(row.get::<_, i16>(4).into())?,
        document: NewDocument {
            id: row.get(5),
            text: String::from_utf8(bytes.unwrap_or_default()).map_err(unreadable)?,
            metadata: metadata
                .map_or(Ok(serde_json::Map::new()), serde_json::from_str)
                .map_err(unreadable)?,
            content_type: row.get(8),
        },
        chunks: spans.map(codec::read_spans).transpose()?,
        vectors,
    })
}

pub(super) async fn unfinished(
    store: &PostgresJobs,
    untouched: Duration,
    after: Option<TaskId>,
    limit: usize,
) -> Result<Vec<Unfinished>, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let (job, item) = match after {
        Some(task) => (task.job.0, to_item(task.item)?),
        None => (uuid::Uuid::nil(), -1),
    };
    let statement = tx
        .prepare_cached(
            "SELECT job, item, jobs.tenant, state, priority, bytes, traceparent, since
             FROM embeddery.jobs JOIN embeddery.job_documents ON job = jobs.id
             WHERE status IN (0, 1) AND state < 3 AND touched_at <= embeddery.now_ms() - $1
                   AND (job, item) > ($2, $3) ORDER BY job, item LIMIT $4",
        )
        .await?;
    let rows = tx.query(&statement, &[&to_ms(untouched).cast_signed(), &job, &item, &(limit as i64)]).await?;
    let read = |row: &Row| {
        Ok(Unfinished {
            task: task(row),
            tenant: Arc::from(row.get::<_, &str>(2)),
            stage: codec::stage(row.get::<_, i16>(3).into())?,
            priority: codec::priority(row.get::<_, i16>(4).into()),
            bytes: row.get::<_, i64>(5).unsigned_abs(),
            since_ms: row.get::<_, i64>(7).unsigned_abs(),
            traceparent: row.get::<_, Option<&str>>(6).map(Arc::from),
        })
    };
    rows.iter().map(read).collect()
}
