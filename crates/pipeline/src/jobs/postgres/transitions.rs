//! What people do to jobs, and what time does.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::types::ToSql;

use super::{For, PostgresJobs, millis, place, read::COUNTED, text};
use crate::{
    DocumentState, Edit, JobError, JobId, Priority, Status, TaskId, Unfinished,
    jobs::codec::{self, priority_number, state_number, unreadable},
};

/// How a job whose documents have ended has ended.
const STATUS: &str = "CASE WHEN d6 > 0 THEN 5 WHEN d4 = 0 AND d5 = 0 THEN 2 WHEN d3 + d7 > 0 THEN 3 WHEN d4 > 0 THEN 4 ELSE 5 END";

/// Ends a job whose last document has ended.
pub(super) async fn settle(store: &PostgresJobs, client: &mut Client, job: JobId) -> Result<(), JobError> {
    let tx = store.begin(client, For::All).await?;
    let unfinished = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM embeddery.job_documents WHERE job = $1 AND state < 3)")
        .await?;
    if tx.query_one(&unfinished, &[&job.0]).await?.get(0) {
        return Ok(());
    }
    let ended = settle_in(&tx, job).await?;
    tx.commit().await?;
    store.ended.count(ended);
    Ok(())
}

/// The same inside a transaction; says how it ended. The lock comes first: what is counted afterwards cannot be set back meanwhile.
async fn settle_in(tx: &Transaction<'_>, job: JobId) -> Result<Option<Status>, JobError> {
    let lock = tx.prepare_cached("SELECT 1 FROM embeddery.jobs WHERE id = $1 FOR UPDATE").await?;
    tx.execute(&lock, &[&job.0]).await?;
    let end = tx
        .prepare_cached(&format!(
            "UPDATE embeddery.jobs SET ended_at = embeddery.now_ms(), status = {STATUS},
                 counts = ARRAY[counted.chunks, stored_chunks, 0, d0, d1, d2, d3, d4, d5, d6, d7]
             FROM (SELECT {COUNTED} FROM embeddery.job_documents WHERE job = $1) AS counted
             WHERE id = $1 AND status IN (0, 1) AND d0 + d1 + d2 = 0 RETURNING status"
        ))
        .await?;
    let ended = tx.query_opt(&end, &[&job.0]).await?;
    ended.map(|row| codec::status(row.get::<_, i16>(0).into())).transpose()
}

pub(super) async fn cancel(store: &PostgresJobs, tenant: &str, job: JobId) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::Tenant(tenant)).await?;
    let Some(status) = locked(&tx, job).await? else { return Ok(false) };
    if status >= codec::FIRST_ENDED {
        return Ok(false);
    }
    let ended = end_all(&tx, job, DocumentState::Cancelled).await?;
    tx.commit().await?;
    store.ended.count(ended);
    Ok(true)
}

pub(super) async fn skip(store: &PostgresJobs, job: JobId) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let Some(status) = locked(&tx, job).await? else { return Ok(false) };
    tx.execute("UPDATE embeddery.jobs SET skipped = true WHERE id = $1", &[&job.0]).await?;
    let ended = match status < codec::FIRST_ENDED {
        true => end_all(&tx, job, DocumentState::Skipped).await?,
        false => None,
    };
    tx.commit().await?;
    store.ended.count(ended);
    Ok(true)
}

/// The status of a started job that nobody else ends meanwhile.
async fn locked(tx: &Transaction<'_>, job: JobId) -> Result<Option<i64>, JobError> {
    let find = "SELECT status FROM embeddery.jobs WHERE id = $1 AND status >= 0 FOR UPDATE";
    let found = tx.query_opt(find, &[&job.0]).await?;
    Ok(found.map(|row| row.get::<_, i16>(0).into()))
}

async fn end_all(tx: &Transaction<'_>, job: JobId, state: DocumentState) -> Result<Option<Status>, JobError> {
    let state = state_number(state) as i16;
    tx.execute(
        "UPDATE embeddery.job_documents SET state = $2, again_at = NULL, touched_at = embeddery.now_ms()
         WHERE job = $1 AND state < 3",
        &[&job.0, &state],
    )
    .await?;
    tx.execute(
        "DELETE FROM embeddery.job_contents AS content USING embeddery.job_documents AS document
         WHERE content.job = $1 AND document.job = $1 AND document.item = content.item AND document.state = $2",
        &[&job.0, &state],
    )
    .await?;
    settle_in(tx, job).await
}

/// Sets what failed back to the stage it failed at; or only one document, changed first.
pub(super) async fn retry(
    store: &PostgresJobs,
    tenant: &str,
    job: JobId,
    only: Option<((u32, u64), &Edit)>,
) -> Result<Vec<Unfinished>, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::Tenant(tenant)).await?;
    // What a person ended stays ended.
    let find = "SELECT priority, traceparent FROM embeddery.jobs
                WHERE id = $1 AND status BETWEEN 0 AND 4 AND NOT skipped FOR UPDATE";
    let Some(found) = tx.query_opt(find, &[&job.0]).await? else { return Ok(Vec::new()) };
    let priority = codec::priority(found.get::<_, i16>(0).into());
    let traceparent = text(found.get(1));
    let item = only.map(|((item, _), _)| place(item)).transpose()?;
    if let (Some(item), Some(((_, entered_ms), edit))) = (item, only) {
        // One that has not ended fails where it stands; its job does not end by it.
        let give_up = "UPDATE embeddery.job_documents SET state = 4, failed_at = state, again_at = NULL,
                           since = greatest(since, $3)
                       WHERE job = $1 AND item = $2 AND state < 3";
        tx.execute(give_up, &[&job.0, &item, &i64::try_from(entered_ms).unwrap_or(i64::MAX - 1)]).await?;
        change_failed(&tx, (job, item), edit).await?;
    }
    let rows = tx
        .query(
            "UPDATE embeddery.job_documents
             SET state = coalesce(failed_at, 0), failed_at = NULL, touched_at = embeddery.now_ms(),
                 since = greatest(embeddery.now_ms(), since + 1)
             WHERE job = $1 AND state = 4 AND ($2::int IS NULL OR item = $2) RETURNING item, state, bytes, since",
            &[&job.0, &item],
        )
        .await?;
    let tenant: Arc<str> = tenant.into();
    let mut again = Vec::with_capacity(rows.len());
    for row in rows {
        again.push(Unfinished {
            task: TaskId { job, item: row.get::<_, i32>(0).unsigned_abs() },
            tenant: Arc::clone(&tenant),
            stage: codec::stage(row.get::<_, i16>(1).into())?,
            priority,
            bytes: row.get::<_, i64>(2).unsigned_abs(),
            since_ms: row.get::<_, i64>(3).unsigned_abs(),
            traceparent: traceparent.clone(),
        });
    }
    if again.is_empty() {
        return Ok(again);
    }
    tx.execute(
        "UPDATE embeddery.jobs SET status = 1, ended_at = NULL, counts = NULL WHERE id = $1",
        &[&job.0],
    )
    .await?;
    tx.commit().await?;
    again.sort_by_key(|document| document.task);
    Ok(again)
}

/// Changes a failed document. What was made of another text goes: it failed in the first stage, as it were.
async fn change_failed(tx: &Transaction<'_>, (job, item): (JobId, i32), edit: &Edit) -> Result<(), JobError> {
    let failed =
        "SELECT 1 FROM embeddery.job_documents WHERE job = $1 AND item = $2 AND state = 4 FOR UPDATE";
    if tx.query_opt(failed, &[&job.0, &item]).await?.is_none() {
        return Ok(());
    }
    if let Some(metadata) = &edit.metadata {
        let metadata = serde_json::to_string(metadata).map_err(unreadable)?;
        let write = "UPDATE embeddery.job_contents SET metadata = $3 WHERE job = $1 AND item = $2";
        tx.execute(write, &[&job.0, &item, &metadata]).await?;
    }
    let Some(text) = &edit.text else { return Ok(()) };
    tx.execute(
        "UPDATE embeddery.job_contents SET text = $3, spans = NULL, vectors_head = NULL, vectors = NULL
         WHERE job = $1 AND item = $2",
        &[&job.0, &item, &text.as_bytes()],
    )
    .await?;
    tx.execute(
        "UPDATE embeddery.job_documents SET bytes = $3, chunks = NULL, failed_at = 0 WHERE job = $1 AND item = $2",
        &[&job.0, &item, &(text.len() as i64)],
    )
    .await?;
    Ok(())
}

pub(super) async fn reprioritize(
    store: &PostgresJobs,
    job: JobId,
    priority: Priority,
) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let changed = tx
        .execute(
            "UPDATE embeddery.jobs SET priority = $2 WHERE id = $1 AND status IN (0, 1)",
            &[&job.0, &(priority_number(priority) as i16)],
        )
        .await?;
    tx.commit().await?;
    Ok(changed > 0)
}

pub(super) async fn discard(store: &PostgresJobs, job: JobId) -> Result<(), JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    tx.execute("DELETE FROM embeddery.jobs WHERE id = $1 AND status = -1", &[&job.0]).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn sweep(
    store: &PostgresJobs,
    ended: Duration,
    abandoned: Duration,
) -> Result<u64, JobError> {
    let mut client = store.client().await?;
    // A process may have died between the last document's end and the job's.
    let tx = store.begin(&mut client, For::All).await?;
    let left = tx
        .query(
            "SELECT id FROM embeddery.jobs WHERE status IN (0, 1) AND NOT EXISTS (
                 SELECT 1 FROM embeddery.job_documents WHERE job = jobs.id AND state < 3)",
            &[],
        )
        .await?;
    drop(tx);
    for row in left {
        settle(store, &mut client, JobId(row.get(0))).await?;
    }
    let past =
        "ended_at < embeddery.now_ms() - $1 OR (status = -1 AND submitted_at < embeddery.now_ms() - $2)";
    let (ended, abandoned) = (millis(ended), millis(abandoned));
    remove(store, &mut client, (For::All, past), &[&ended, &abandoned]).await
}

/// Documents that are removed in one statement: none takes longer than a statement may.
const STEP: u32 = 5000;

/// Removes jobs that `which` is true of, their documents first; how many.
async fn remove(
    store: &PostgresJobs,
    client: &mut Client,
    (whom, which): (For<'_>, &str),
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, JobError> {
    let some = format!(
        "DELETE FROM embeddery.job_documents WHERE (job, item) IN (
             SELECT job, item FROM embeddery.job_documents JOIN embeddery.jobs ON jobs.id = job
             WHERE {which} LIMIT {STEP})"
    );
    loop {
        let tx = store.begin(client, whom).await?;
        let removed = tx.execute(&some, parameters).await?;
        tx.commit().await?;
        if removed == 0 {
            break;
        }
    }
    let tx = store.begin(client, whom).await?;
    let jobs = tx.execute(&format!("DELETE FROM embeddery.jobs WHERE {which}"), parameters).await?;
    tx.commit().await?;
    Ok(jobs)
}

pub(super) async fn delete_tenant(store: &PostgresJobs, tenant: &str) -> Result<u64, JobError> {
    let mut client = store.client().await?;
    // First nobody sees them any more, and no result of a worker finds them.
    let tx = store.begin(&mut client, For::Tenant(tenant)).await?;
    let close = "UPDATE embeddery.jobs SET status = -1, submitted_at = 0, ended_at = NULL
                 WHERE jobs.tenant = $1 AND status >= 0";
    let seen = tx.execute(close, &[&tenant]).await?;
    tx.commit().await?;
    remove(store, &mut client, (For::Tenant(tenant), "jobs.tenant = $1 AND status = -1"), &[&tenant]).await?;
    Ok(seen)
}
