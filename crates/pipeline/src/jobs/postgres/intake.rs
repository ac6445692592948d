//! Opens jobs, adds their documents, starts them.

use deadpool_postgres::Transaction;

use super::{PostgresJobs, Scope};
use crate::{
    JobError, JobId, JobIntake, JobOp, NewDocument, NewJob, OpenResult,
    jobs::codec::{self, priority_number, unreadable},
};

impl JobIntake for PostgresJobs {
    fn open(&self, job: NewJob) -> JobOp<'_, OpenResult> {
        Box::pin(open(self, job))
    }

    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()> {
        Box::pin(append(self, job, documents))
    }

    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, OpenResult> {
        Box::pin(async move {
            let result = start(self, job, body_hash).await?;
            if result != OpenResult::New(job) {
                // A crash here leaves the open job to `purge_expired`.
                discard(self, job).await?;
            }
            Ok(result)
        })
    }

    fn discard(&self, job: JobId) -> JobOp<'_, ()> {
        Box::pin(discard(self, job))
    }
}

async fn open(store: &PostgresJobs, job: NewJob) -> Result<OpenResult, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::Tenant(&job.tenant)).await?;
    if let Some(key) = &job.idempotency_key
        && let Some((started, _)) = started_job(&tx, &job.tenant, key).await?
    {
        return Ok(OpenResult::Same(started));
    }
    let last =
        tx.prepare_cached("SELECT id FROM embeddery.jobs WHERE tenant = $1 ORDER BY id DESC LIMIT 1").await?;
    let last = tx.query_opt(&last, &[&&*job.tenant]).await?.map(|row| row.get(0));
    let id = codec::job_id(last);
    let max_unfinished = job.max_unfinished.map(|max| i64::try_from(max).unwrap_or(i64::MAX));
    let statement = tx
        .prepare_cached(
            "INSERT INTO embeddery.jobs (id, tenant, idempotency_key, max_unfinished, plan, priority, traceparent,
                                         submitted_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, embeddery.now_ms())",
        )
        .await?;
    let priority = priority_number(job.priority) as i16;
    let traceparent = job.traceparent.as_deref();
    tx.execute(
        &statement,
        &[
            &id.0,
            &&*job.tenant,
            &job.idempotency_key,
            &max_unfinished,
            &codec::plan(&job.plan),
            &priority,
            &traceparent,
        ],
    )
    .await?;
    tx.commit().await?;
    Ok(OpenResult::New(id))
}

async fn append(store: &PostgresJobs, job: JobId, documents: Vec<NewDocument>) -> Result<(), JobError> {
    let count = i32::try_from(documents.len()).map_err(unreadable)?;
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let count_documents = tx
        .prepare_cached(
            "UPDATE embeddery.jobs SET documents = documents + $2, submitted_at = embeddery.now_ms()
             WHERE id = $1 AND status = -1 RETURNING documents, tenant",
        )
        .await?;
    let counted = tx.query_opt(&count_documents, &[&job.0, &count]).await?.ok_or_else(removed)?;
    let (total, tenant): (i32, &str) = (counted.get(0), counted.get(1));
    let items: Vec<i32> = (total - count..total).collect();
    let ids: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let sizes: Vec<i64> = documents.iter().map(|document| document.text.len() as i64).collect();
    let rows = tx
        .prepare_cached(
            "INSERT INTO embeddery.job_documents (job, item, tenant, id, bytes, touched_at)
             SELECT $1, item, $2, id, bytes, embeddery.now_ms()
             FROM unnest($3::int[], $4::text[], $5::bigint[]) AS sent (item, id, bytes)",
        )
        .await?;
    tx.execute(&rows, &[&job.0, &tenant, &items, &ids, &sizes]).await?;
    let texts: Vec<&[u8]> = documents.iter().map(|document| document.text.as_bytes()).collect();
    let metadata = documents.iter().map(|document| serde_json::to_string(&document.metadata));
    let metadata = metadata.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let types: Vec<Option<&str>> =
        documents.iter().map(|document| document.content_type.as_deref()).collect();
    let contents = tx
        .prepare_cached(
            "INSERT INTO embeddery.job_contents (job, item, tenant, text, metadata, content_type)
             SELECT $1, item, $2, text, metadata, content_type
             FROM unnest($3::int[], $4::bytea[], $5::text[], $6::text[]) AS sent (item, text, metadata, content_type)",
        )
        .await?;
    tx.execute(&contents, &[&job.0, &tenant, &items, &texts, &metadata, &types]).await?;
    Ok(tx.commit().await?)
}

async fn start(store: &PostgresJobs, job: JobId, hash: [u8; 32]) -> Result<OpenResult, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let find = tx
        .prepare_cached(
            "SELECT status, body_hash, tenant, idempotency_key, max_unfinished FROM embeddery.jobs WHERE id = $1",
        )
        .await?;
    let found = tx.query_opt(&find, &[&job.0]).await?.ok_or_else(removed)?;
    let (tenant, key, max_unfinished): (&str, Option<&str>, Option<i64>) =
        (found.get(2), found.get(3), found.get(4));
    let same = |job, other: Option<&[u8]>| match other == Some(hash.as_slice()) {
        true => OpenResult::Same(job),
        false => OpenResult::Conflict(job),
    };
    if found.get::<_, i16>(0) >= 0 {
        return Ok(same(job, found.get(1)));
    }
    // A tenant's jobs start one after another, so that each sees the keys and the number of the ones before it.
    let lock = tx.prepare_cached("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))").await?;
    tx.execute(&lock, &[&tenant]).await?;
    if let Some(key) = key
        && let Some((other, hash)) = started_job(&tx, tenant, key).await?
    {
        return Ok(same(other, hash.as_deref()));
    }
    if let Some(max_unfinished) = max_unfinished {
        let count = tx
            .prepare_cached("SELECT count(*) FROM embeddery.jobs WHERE tenant = $1 AND status IN (0, 1)")
            .await?;
        let unfinished: i64 = tx.query_one(&count, &[&tenant]).await?.get(0);
        if unfinished >= max_unfinished {
            return Ok(OpenResult::TooMany(unfinished.max(0).unsigned_abs()));
        }
    }
    let start = tx
        .prepare_cached(
            "UPDATE embeddery.jobs SET status = 0, body_hash = $2, submitted_at = embeddery.now_ms()
             WHERE id = $1 AND status = -1",
        )
        .await?;
    let started = tx.execute(&start, &[&job.0, &hash.as_slice()]).await?;
    tx.commit().await?;
    if started == 1 { Ok(OpenResult::New(job)) } else { Err(removed()) }
}

async fn discard(store: &PostgresJobs, job: JobId) -> Result<(), JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    tx.execute("DELETE FROM embeddery.jobs WHERE id = $1 AND status = -1", &[&job.0]).await?;
    Ok(tx.commit().await?)
}

/// The started job of a key, and the hash of its request.
async fn started_job(
    tx: &Transaction<'_>,
    tenant: &str,
    key: &str,
) -> Result<Option<(JobId, Option<Vec<u8>>)>, JobError> {
    let find = tx
        .prepare_cached(
            "SELECT id, body_hash FROM embeddery.jobs WHERE tenant = $1 AND idempotency_key = $2 AND status >= 0",
        )
        .await?;
    let found = tx.query_opt(&find, &[&tenant, &key]).await?;
    Ok(found.map(|row| (JobId(row.get(0)), row.get(1))))
}

fn removed() -> JobError {
    JobError::Unavailable("the job was not started in time and is removed; send it again".into())
}
