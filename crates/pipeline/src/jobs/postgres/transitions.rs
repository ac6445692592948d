//! Cancels, retries, skips and reprioritizes jobs.

use std::sync::Arc;

use deadpool_postgres::Transaction;

use super::{PostgresJobs, Scope, maintenance::settle_in, to_item};
use crate::{
    DocumentState, Edit, JobAdmin, JobError, JobId, JobOp, Priority, Status, TaskId, Unfinished,
    jobs::codec::{self, priority_number, state_number, unreadable},
};

impl JobAdmin for PostgresJobs {
    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool> {
        Box::pin(cancel(self, tenant, job))
    }

    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>> {
        Box::pin(retry(self, tenant, job, None))
    }

    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        task: TaskId,
        enqueued_at_ms: u64,
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>> {
        Box::pin(async move {
            let only = DocumentRetry { item: to_item(task.item)?, enqueued_at_ms, edit: &edit };
            Ok(retry(self, tenant, task.job, Some(only)).await?.pop())
        })
    }

    fn skip(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(skip(self, job))
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool> {
        Box::pin(reprioritize(self, job, priority))
    }
}

async fn cancel(store: &PostgresJobs, tenant: &str, job: JobId) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::Tenant(tenant)).await?;
    let Some(status) = lock(&tx, job).await? else { return Ok(false) };
    if status >= codec::FIRST_ENDED {
        return Ok(false);
    }
    let ended = end_all(&tx, job, DocumentState::Cancelled).await?;
    tx.commit().await?;
    store.metrics.count(ended);
    Ok(true)
}

async fn skip(store: &PostgresJobs, job: JobId) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let Some(status) = lock(&tx, job).await? else { return Ok(false) };
    tx.execute("UPDATE embeddery.jobs SET skipped = true WHERE id = $1", &[&job.0]).await?;
    let ended = match status < codec::FIRST_ENDED {
        true => end_all(&tx, job, DocumentState::Skipped).await?,
        false => None,
    };
    tx.commit().await?;
    store.metrics.count(ended);
    Ok(true)
}

/// Locks a started job, so that no other transaction ends it. Returns its status.
async fn lock(tx: &Transaction<'_>, job: JobId) -> Result<Option<i64>, JobError> {
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

/// A document to edit and set back.
struct DocumentRetry<'a> {
    item: i32,
    /// A failure of the task that entered the queue then, or earlier, does not end the document.
    enqueued_at_ms: u64,
    edit: &'a Edit,
}

/// Sets failed documents back to the stage at which they failed; or only one document, after an edit.
async fn retry(
    store: &PostgresJobs,
    tenant: &str,
    job: JobId,
    only: Option<DocumentRetry<'_>>,
) -> Result<Vec<Unfinished>, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::Tenant(tenant)).await?;
    // A job that was cancelled or skipped stays ended.
    let find = "SELECT priority, traceparent FROM embeddery.jobs
                WHERE id = $1 AND status BETWEEN 0 AND 4 AND NOT skipped FOR UPDATE";
    let Some(found) = tx.query_opt(find, &[&job.0]).await? else { return Ok(Vec::new()) };
    let priority = codec::priority(found.get::<_, i16>(0).into());
    let traceparent: Option<Arc<str>> = found.get::<_, Option<&str>>(1).map(Arc::from);
    if let Some(DocumentRetry { item, enqueued_at_ms, edit }) = &only {
        // A document that has not ended fails at its stage. Its job does not end by that.
        let fail_unfinished = "UPDATE embeddery.job_documents
             SET state = 4, failed_at = state, again_at = NULL, since = greatest(since, $3)
             WHERE job = $1 AND item = $2 AND state < 3";
        let since = i64::try_from(*enqueued_at_ms).unwrap_or(i64::MAX - 1);
        tx.execute(fail_unfinished, &[&job.0, item, &since]).await?;
        edit_failed(&tx, job, *item, edit).await?;
    }
    let item = only.map(|only| only.item);
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
    let mut documents = Vec::with_capacity(rows.len());
    for row in rows {
        documents.push(Unfinished {
            task: TaskId { job, item: row.get::<_, i32>(0).unsigned_abs() },
            tenant: Arc::clone(&tenant),
            stage: codec::stage(row.get::<_, i16>(1).into())?,
            priority,
            bytes: row.get::<_, i64>(2).unsigned_abs(),
            since_ms: row.get::<_, i64>(3).unsigned_abs(),
            traceparent: traceparent.clone(),
        });
    }
    if documents.is_empty() {
        return Ok(documents);
    }
    tx.execute(
        "UPDATE embeddery.jobs SET status = 1, ended_at = NULL, counts = NULL WHERE id = $1",
        &[&job.0],
    )
    .await?;
    tx.commit().await?;
    documents.sort_by_key(|document| document.task);
    Ok(documents)
}

/// Edits a failed document. With a new text its results are removed, and it is set back to the first stage.
async fn edit_failed(tx: &Transaction<'_>, job: JobId, item: i32, edit: &Edit) -> Result<(), JobError> {
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

async fn reprioritize(store: &PostgresJobs, job: JobId, priority: Priority) -> Result<bool, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let changed = tx
        .execute(
            "UPDATE embeddery.jobs SET priority = $2 WHERE id = $1 AND status IN (0, 1)",
            &[&job.0, &(priority_number(priority) as i16)],
        )
        .await?;
    tx.commit().await?;
    Ok(changed > 0)
}
