//! How a job comes to be: opened, filled, started.

use super::{For, PostgresJobs, transitions};
use crate::{
    JobError, JobId, NewDocument, NewJob, OpenResult,
    jobs::codec::{self, priority_number, unreadable},
};

pub(super) async fn open(store: &PostgresJobs, job: NewJob) -> Result<OpenResult, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::Tenant(&job.tenant)).await?;
    if let Some(key) = &job.idempotency_key
        && let Some((found, _)) = by_key(&tx, (&job.tenant, key)).await?
    {
        return Ok(OpenResult::Same(found));
    }
    let last =
        tx.prepare_cached("SELECT id FROM embeddery.jobs WHERE tenant = $1 ORDER BY id DESC LIMIT 1").await?;
    let last = tx.query_opt(&last, &[&&*job.tenant]).await?.map(|row| row.get(0));
    let id = codec::job_id(last);
    let most = job.max_unfinished.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
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
            &most,
            &codec::plan(&job.plan),
            &priority,
            &traceparent,
        ],
    )
    .await?;
    tx.commit().await?;
    Ok(OpenResult::New(id))
}

pub(super) async fn append(
    store: &PostgresJobs,
    job: JobId,
    documents: Vec<NewDocument>,
) -> Result<(), JobError> {
    let count = i32::try_from(documents.len()).map_err(unreadable)?;
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let grow = tx
        .prepare_cached(
            "UPDATE embeddery.jobs SET documents = documents + $2, submitted_at = embeddery.now_ms()
             WHERE id = $1 AND status = -1 RETURNING documents, tenant",
        )
        .await?;
    let grown = tx.query_opt(&grow, &[&job.0, &count]).await?.ok_or_else(gone)?;
    let (after, tenant): (i32, &str) = (grown.get(0), grown.get(1));
    let items: Vec<i32> = (after - count..after).collect();
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

pub(super) async fn start(store: &PostgresJobs, job: JobId, hash: [u8; 32]) -> Result<OpenResult, JobError> {
    let opened = begin_work(store, job, hash).await?;
    if opened != OpenResult::New(job) {
        // What was opened for nothing goes; a crash here leaves it to the sweep.
        transitions::discard(store, job).await?;
    }
    Ok(opened)
}

async fn begin_work(store: &PostgresJobs, job: JobId, hash: [u8; 32]) -> Result<OpenResult, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let find = tx
        .prepare_cached(
            "SELECT status, body_hash, tenant, idempotency_key, max_unfinished FROM embeddery.jobs WHERE id = $1",
        )
        .await?;
    let found = tx.query_opt(&find, &[&job.0]).await?.ok_or_else(gone)?;
    let (tenant, key, most): (&str, Option<&str>, Option<i64>) = (found.get(2), found.get(3), found.get(4));
    let same = |job, found: Option<&[u8]>| match found == Some(hash.as_slice()) {
        true => OpenResult::Same(job),
        false => OpenResult::Conflict(job),
    };
    if found.get::<_, i16>(0) >= 0 {
        return Ok(same(job, found.get(1)));
    }
    // A tenant's jobs start one after the other: each sees the ones before, with their keys and their number.
    let lock = tx.prepare_cached("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))").await?;
    tx.execute(&lock, &[&tenant]).await?;
    if let Some(key) = key
        && let Some((other, found)) = by_key(&tx, (tenant, key)).await?
    {
        return Ok(same(other, found.as_deref()));
    }
    if let Some(most) = most {
        let count = tx
            .prepare_cached("SELECT count(*) FROM embeddery.jobs WHERE tenant = $1 AND status IN (0, 1)")
            .await?;
        let running: i64 = tx.query_one(&count, &[&tenant]).await?.get(0);
        if running >= most {
            return Ok(OpenResult::TooMany(running.max(0).unsigned_abs()));
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
    if started == 1 { Ok(OpenResult::New(job)) } else { Err(gone()) }
}

/// The started job of a key, and its hash.
async fn by_key(
    tx: &deadpool_postgres::Transaction<'_>,
    (tenant, key): (&str, &str),
) -> Result<Option<(JobId, Option<Vec<u8>>)>, JobError> {
    let find = tx
        .prepare_cached(
            "SELECT id, body_hash FROM embeddery.jobs WHERE tenant = $1 AND idempotency_key = $2 AND status >= 0",
        )
        .await?;
    let found = tx.query_opt(&find, &[&tenant, &key]).await?;
    Ok(found.map(|row| (JobId(row.get(0)), row.get(1))))
}

fn gone() -> JobError {
    JobError::Unavailable("the job was not started in time and is removed; send it again".into())
}
