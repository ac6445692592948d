//! Cancels, retries, skips and reprioritizes jobs.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    SqliteJobs, intake::compress_text, item, key, keys, maintenance::remove_content, now, progress::settle,
};
use crate::{
    DocumentState, Edit, JobAdmin, JobError, JobId, JobOp, Priority, Status, TaskId, Unfinished,
    jobs::codec::{self, priority_number, state_number, unreadable},
};

impl JobAdmin for SqliteJobs {
    fn cancel<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, bool> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let ended = self.write_durable(move |db| cancel(db, &tenant, job)).await?;
            self.metrics.count(ended);
            self.in_steps(move |db| remove_content(db, job)).await?;
            Ok(ended.is_some())
        })
    }

    fn retry<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Vec<Unfinished>> {
        let tenant = tenant.to_owned();
        Box::pin(self.write_durable(move |db| retry(db, &tenant, job, None)))
    }

    fn retry_document<'a>(
        &'a self,
        tenant: &'a str,
        task: TaskId,
        enqueued_at_ms: u64,
        edit: Edit,
    ) -> JobOp<'a, Option<Unfinished>> {
        let tenant = tenant.to_owned();
        Box::pin(self.write_durable(move |db| retry_document(db, &tenant, task, enqueued_at_ms, &edit)))
    }

    fn skip(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(async move {
            let (exists, ended) = self.write_durable(move |db| skip(db, job)).await?;
            self.metrics.count(ended);
            self.in_steps(move |db| remove_content(db, job)).await?;
            Ok(exists)
        })
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> JobOp<'_, bool> {
        Box::pin(self.write_durable(move |db| {
            let changed = db.execute(
                "UPDATE job SET priority = ?2 WHERE id = ?1 AND status IN (0, 1)",
                params![job.0, priority_number(priority)],
            )?;
            Ok(changed > 0)
        }))
    }
}

/// Ends a job's unfinished documents as cancelled. Returns the job's status if that ended it.
fn cancel(db: &Connection, tenant: &str, job: JobId) -> Result<Option<Status>, JobError> {
    match find(db, job)? {
        Some(found) if found.tenant == tenant && found.is_unfinished() => {
            end_all(db, found.number, DocumentState::Cancelled)
        }
        _ => Ok(None),
    }
}

/// Ends a job's unfinished documents as skipped. Returns whether the job exists, and its status if that ended it.
fn skip(db: &Connection, job: JobId) -> Result<(bool, Option<Status>), JobError> {
    let Some(found) = find(db, job)? else { return Ok((false, None)) };
    db.execute("UPDATE job SET skipped = 1 WHERE number = ?", [found.number])?;
    let ended = if found.is_unfinished() { end_all(db, found.number, DocumentState::Skipped)? } else { None };
    Ok((true, ended))
}

fn end_all(db: &Connection, number: i64, state: DocumentState) -> Result<Option<Status>, JobError> {
    let ((from, to), now, state) = (keys(number), now(), state_number(state));
    let changed = db
        .prepare_cached(
            "UPDATE document SET state = ?3, again_at_ms = NULL, touched_at_ms = ?4
             WHERE key BETWEEN ?1 AND ?2 AND state < 3",
        )?
        .execute(params![from, to, state, now])?;
    db.execute(
        &format!("UPDATE job SET d0 = 0, d1 = 0, d2 = 0, d{state} = d{state} + ?2 WHERE number = ?1"),
        params![number, changed],
    )?;
    settle(db, number, now)
}

/// Sets failed documents, or the failed document `only`, back to the stage at which they failed.
fn retry(db: &Connection, tenant: &str, job: JobId, only: Option<u32>) -> Result<Vec<Unfinished>, JobError> {
    let Some(found) = find(db, job)? else { return Ok(Vec::new()) };
    if !found.may_be_retried(tenant) {
        return Ok(Vec::new());
    }
    let (from, to) = match only {
        Some(item) => (key(found.number, item), key(found.number, item)),
        None => keys(found.number),
    };
    let mut documents = Vec::new();
    let mut rows = db.prepare_cached(
        "UPDATE document SET state = coalesce(failed_at, 0), failed_at = NULL, touched_at_ms = ?3,
                             since_ms = max(?3, since_ms + 1)
         WHERE state = 4 AND key BETWEEN ?1 AND ?2 RETURNING key, state, bytes, since_ms",
    )?;
    let mut rows = rows.query([from, to, now()])?;
    let tenant: Arc<str> = tenant.into();
    while let Some(row) = rows.next()? {
        documents.push(Unfinished {
            task: TaskId { job, item: item(row.get(0)?) },
            tenant: Arc::clone(&tenant),
            stage: codec::stage(row.get(1)?)?,
            priority: codec::priority(found.priority),
            bytes: row.get(2)?,
            since_ms: row.get(3)?,
            traceparent: found.traceparent.as_deref().map(Into::into),
        });
    }
    documents.sort_by_key(|document: &Unfinished| document.task);
    if documents.is_empty() {
        return Ok(documents);
    }
    let mut counts = [0_i64; 3];
    for document in &documents {
        counts[codec::stage_number(document.stage) as usize] += 1;
    }
    db.execute(
        "UPDATE job SET status = 1, ended_at_ms = NULL, d4 = d4 - ?2 - ?3 - ?4, d0 = d0 + ?2, d1 = d1 + ?3,
             d2 = d2 + ?4 WHERE number = ?1",
        params![found.number, counts[0], counts[1], counts[2]],
    )?;
    Ok(documents)
}

/// Edits one document and sets it back to the stage at which it failed, or stands.
fn retry_document(
    db: &Connection,
    tenant: &str,
    task: TaskId,
    enqueued_at_ms: u64,
    edit: &Edit,
) -> Result<Option<Unfinished>, JobError> {
    if let Some(found) = find(db, task.job)?
        && found.may_be_retried(tenant)
    {
        let key = key(found.number, task.item);
        fail_unfinished(db, found.number, key, enqueued_at_ms)?;
        edit_failed(db, found.number, key, edit)?;
    }
    Ok(retry(db, tenant, task.job, Some(task.item))?.pop())
}

/// Fails a document that has not ended, at its stage. Its job does not end by that.
fn fail_unfinished(db: &Connection, number: i64, key: i64, enqueued_at_ms: u64) -> Result<(), JobError> {
    let stage: Option<i64> = db
        .prepare_cached(
            "UPDATE document SET state = 4, failed_at = state, again_at_ms = NULL, since_ms = max(since_ms, ?2)
             WHERE key = ?1 AND state < 3 RETURNING failed_at",
        )?
        .query_row(params![key, enqueued_at_ms], |row| row.get(0))
        .optional()?;
    if let Some(stage) = stage {
        db.execute(
            &format!("UPDATE job SET d{stage} = d{stage} - 1, d4 = d4 + 1 WHERE number = ?"),
            [number],
        )?;
    }
    Ok(())
}

/// Edits a failed document. With a new text its results are removed, and it is set back to the first stage.
fn edit_failed(db: &Connection, number: i64, key: i64, edit: &Edit) -> Result<(), JobError> {
    const FAILED: &str = "(SELECT key FROM document WHERE key = ?1 AND state = 4)";
    if let Some(metadata) = &edit.metadata {
        let metadata = serde_json::to_string(metadata).map_err(unreadable)?;
        db.execute(
            &format!("UPDATE content SET metadata = ?2 WHERE key = {FAILED}"),
            params![key, metadata],
        )?;
    }
    let Some(text) = &edit.text else { return Ok(()) };
    let (text, bytes) = (compress_text(text)?, text.len());
    db.execute(
        &format!(
            "UPDATE content SET text = ?2, packed = ?3, spans = NULL, vectors_head = NULL, vectors = NULL
             WHERE key = {FAILED}"
        ),
        params![key, text.bytes, text.compressed],
    )?;
    db.execute(
        "UPDATE job SET chunks = chunks
             - coalesce((SELECT chunks FROM document WHERE key = ?1 AND state = 4), 0) WHERE number = ?2",
        [key, number],
    )?;
    db.execute(
        "UPDATE document SET bytes = ?2, chunks = NULL, failed_at = 0 WHERE key = ?1 AND state = 4",
        params![key, bytes],
    )?;
    Ok(())
}

/// What a transition needs to know of a started job.
pub(super) struct StartedJob {
    pub(super) number: i64,
    tenant: String,
    status: i64,
    priority: i64,
    skipped: bool,
    traceparent: Option<String>,
}

impl StartedJob {
    const fn is_unfinished(&self) -> bool {
        self.status < codec::FIRST_ENDED
    }

    /// Whether its failed documents may be tried again. A job that was cancelled or skipped stays ended.
    fn may_be_retried(&self, tenant: &str) -> bool {
        let cancelled = self.status == codec::status_number(Status::Cancelled);
        self.tenant == tenant && !self.skipped && !cancelled
    }
}

pub(super) fn find(db: &Connection, job: JobId) -> Result<Option<StartedJob>, JobError> {
    Ok(db
        .prepare_cached(
            "SELECT number, tenant, status, priority, skipped, traceparent FROM job
             WHERE id = ? AND status >= 0",
        )?
        .query_row([job.0], |row| {
            Ok(StartedJob {
                number: row.get(0)?,
                tenant: row.get(1)?,
                status: row.get(2)?,
                priority: row.get(3)?,
                skipped: row.get(4)?,
                traceparent: row.get(5)?,
            })
        })
        .optional()?)
}
