//! What people do to jobs, and what time does. What is long is removed in steps, so that nobody waits for the file.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{item, key, keys, now, progress::settle, submit::packed};
use crate::{
    DocumentState, Edit, JobError, JobId, Priority, Status, TaskId, Unfinished,
    jobs::codec::{self, priority_number, state_number, unreadable},
};

/// Rows that are removed in one transaction.
const STEP: usize = 500;

/// Ends what has not ended as cancelled; how the job ended, if it has now.
pub(super) fn cancel(db: &Connection, tenant: &str, job: JobId) -> Result<Option<Status>, JobError> {
    match find(db, job)? {
        Some(found) if found.owner == tenant && found.runs() => {
            end_all(db, found.number, DocumentState::Cancelled)
        }
        _ => Ok(None),
    }
}

/// Ends what has not ended as skipped; whether there is such a job, and how it ended if it has now.
pub(super) fn skip(db: &Connection, job: JobId) -> Result<(bool, Option<Status>), JobError> {
    let Some(found) = find(db, job)? else { return Ok((false, None)) };
    db.execute("UPDATE job SET skipped = 1 WHERE number = ?", [found.number])?;
    let ended = if found.runs() { end_all(db, found.number, DocumentState::Skipped)? } else { None };
    Ok((true, ended))
}

fn end_all(db: &Connection, number: i64, state: DocumentState) -> Result<Option<Status>, JobError> {
    let ((from, to), now, state) = (keys(number), now(), state_number(state));
    let changed = db
        .prepare_cached(
            "UPDATE document SET state = ?3, again_at_ms = NULL, touched_at_ms = ?4 WHERE key BETWEEN ?1 AND ?2 AND state < 3",
        )?
        .execute(params![from, to, state, now])?;
    db.execute(
        &format!("UPDATE job SET d0 = 0, d1 = 0, d2 = 0, d{state} = d{state} + ?2 WHERE number = ?1"),
        params![number, changed],
    )?;
    settle(db, number, now)
}

/// Sets what failed, or only this document, back to the stage it failed at.
pub(super) fn retry(
    db: &Connection,
    tenant: &str,
    (job, only): (JobId, Option<u32>),
) -> Result<Vec<Unfinished>, JobError> {
    let Some(found) = find(db, job)? else { return Ok(Vec::new()) };
    if !found.may_run_again(tenant) {
        return Ok(Vec::new());
    }
    let (from, to) = match only {
        Some(item) => (key(found.number, item), key(found.number, item)),
        None => keys(found.number),
    };
    let mut failed = Vec::new();
    let mut rows = db.prepare_cached(
        "UPDATE document SET state = coalesce(failed_at, 0), failed_at = NULL, touched_at_ms = ?3,
                             since_ms = max(?3, since_ms + 1)
         WHERE state = 4 AND key BETWEEN ?1 AND ?2 RETURNING key, state, bytes, since_ms",
    )?;
    let mut rows = rows.query([from, to, now()])?;
    let tenant: std::sync::Arc<str> = tenant.into();
    while let Some(row) = rows.next()? {
        failed.push(Unfinished {
            task: TaskId { job, item: item(row.get(0)?) },
            tenant: tenant.clone(),
            stage: codec::stage(row.get(1)?)?,
            priority: codec::priority(found.priority),
            bytes: row.get(2)?,
            since_ms: row.get(3)?,
            traceparent: found.traceparent.as_deref().map(Into::into),
        });
    }
    failed.sort_by_key(|document: &Unfinished| document.task);
    if failed.is_empty() {
        return Ok(failed);
    }
    let mut back = [0_i64; 3];
    for document in &failed {
        back[codec::stage_number(document.stage) as usize] += 1;
    }
    db.execute(
        "UPDATE job SET status = 1, ended_at_ms = NULL, d4 = d4 - ?2 - ?3 - ?4, d0 = d0 + ?2, d1 = d1 + ?3, d2 = d2 + ?4
         WHERE number = ?1",
        params![found.number, back[0], back[1], back[2]],
    )?;
    Ok(failed)
}

/// The same for one document, changed first.
pub(super) fn retry_document(
    db: &Connection,
    tenant: &str,
    (task, entered_ms): (TaskId, u64),
    edit: &Edit,
) -> Result<Option<Unfinished>, JobError> {
    if let Some(found) = find(db, task.job)?
        && found.may_run_again(tenant)
    {
        let key = key(found.number, task.item);
        give_up(db, (found.number, key), entered_ms)?;
        change_failed(db, (found.number, key), edit)?;
    }
    Ok(retry(db, tenant, (task.job, Some(task.item)))?.pop())
}

/// A document that has not ended fails where it stands; its job does not end by it.
fn give_up(db: &Connection, (number, key): (i64, i64), entered_ms: u64) -> Result<(), JobError> {
    let stage: Option<i64> = db
        .prepare_cached(
            "UPDATE document SET state = 4, failed_at = state, again_at_ms = NULL, since_ms = max(since_ms, ?2)
             WHERE key = ?1 AND state < 3 RETURNING failed_at",
        )?
        .query_row(params![key, entered_ms], |row| row.get(0))
        .optional()?;
    if let Some(stage) = stage {
        db.execute(
            &format!("UPDATE job SET d{stage} = d{stage} - 1, d4 = d4 + 1 WHERE number = ?"),
            [number],
        )?;
    }
    Ok(())
}

/// Changes a failed document. What was made of another text goes: it failed in the first stage, as it were.
fn change_failed(db: &Connection, (number, key): (i64, i64), edit: &Edit) -> Result<(), JobError> {
    const FAILED: &str = "(SELECT key FROM document WHERE key = ?1 AND state = 4)";
    if let Some(metadata) = &edit.metadata {
        let metadata = serde_json::to_string(metadata).map_err(unreadable)?;
        db.execute(
            &format!("UPDATE content SET metadata = ?2 WHERE key = {FAILED}"),
            params![key, metadata],
        )?;
    }
    let Some(text) = &edit.text else { return Ok(()) };
    let (text, bytes) = (packed(text)?, text.len());
    db.execute(
        &format!(
            "UPDATE content SET text = ?2, packed = ?3, spans = NULL, vectors_head = NULL, vectors = NULL
             WHERE key = {FAILED}"
        ),
        params![key, text.stored, text.packed],
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

pub(super) fn reprioritize(db: &Connection, job: JobId, priority: Priority) -> Result<bool, JobError> {
    let changed = db.execute(
        "UPDATE job SET priority = ?2 WHERE id = ?1 AND status IN (0, 1)",
        params![job.0, priority_number(priority)],
    )?;
    Ok(changed > 0)
}

/// Removes texts and results of documents that were cancelled or skipped.
pub(super) fn drop_content(db: &Connection, job: JobId) -> Result<u64, JobError> {
    let Some(found) = find(db, job)? else { return Ok(0) };
    drop_content_of(db, found.number)
}

fn drop_content_of(db: &Connection, number: i64) -> Result<u64, JobError> {
    let (from, to) = keys(number);
    let removed = db
        .prepare_cached(
            "DELETE FROM content WHERE key IN (
                 SELECT content.key FROM content JOIN document USING (key)
                 WHERE content.key BETWEEN ?1 AND ?2 AND document.state IN (5, 6) LIMIT ?3)",
        )?
        .execute(params![from, to, STEP])?;
    Ok(removed as u64)
}

/// Removes a job that was opened and not started.
pub(super) fn drop_open(db: &Connection, job: JobId) -> Result<u64, JobError> {
    let open: Option<i64> = db
        .query_row("SELECT number FROM job WHERE id = ? AND status = -1", [job.0], |row| row.get(0))
        .optional()?;
    open.map_or(Ok(0), |number| remove(db, number))
}

/// Removes some of a job, the job last; how much, 0 when there was nothing.
fn remove(db: &Connection, number: i64) -> Result<u64, JobError> {
    let (from, to) = keys(number);
    let mut removed = 0;
    for table in ["content", "document"] {
        let delete = format!(
            "DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE key BETWEEN ? AND ? LIMIT ?)"
        );
        removed += db.prepare_cached(&delete)?.execute(params![from, to, STEP])?;
    }
    if removed == 0 {
        removed = db.execute("DELETE FROM job WHERE number = ?", [number])?;
    }
    Ok(removed as u64)
}

/// Removes some of what is past; 0 when there is nothing any more.
pub(super) fn sweep_step(db: &Connection, ended: i64, abandoned: i64) -> Result<u64, JobError> {
    let past: Option<i64> = db
        .prepare_cached(
            "SELECT number FROM job WHERE ended_at_ms < ?1
             UNION ALL SELECT number FROM job WHERE status = -1 AND submitted_at_ms < ?2 LIMIT 1",
        )?
        .query_row([ended, abandoned], |row| row.get(0))
        .optional()?;
    if let Some(number) = past {
        return remove(db, number);
    }
    // A process may have died between cancelling and removing.
    let left: Option<i64> = db
        .prepare_cached(
            "SELECT number FROM job WHERE ended_at_ms IS NOT NULL AND d5 + d6 > 0 AND EXISTS (
                 SELECT 1 FROM content JOIN document USING (key)
                 WHERE content.key BETWEEN number << 32 AND ((number + 1) << 32) - 1 AND state IN (5, 6)) LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    left.map_or(Ok(0), |number| drop_content_of(db, number))
}

/// Gives free pages back to the disk; 0 when there are few.
pub(super) fn shrink_step(db: &Connection) -> Result<u64, JobError> {
    let free = |db: &Connection| db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u64>(0));
    let before = free(db)?;
    if before < 256 {
        return Ok(0);
    }
    let mut pages = db.prepare("PRAGMA incremental_vacuum(256)")?;
    let mut rows = pages.query([])?;
    while rows.next()?.is_some() {}
    Ok(before - free(db)?)
}

/// Ends all of a tenant's jobs and hides them; how many there were that people could see.
pub(super) fn close_tenant(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    Ok(db.execute(
        "UPDATE job SET status = -1, submitted_at_ms = 0, ended_at_ms = NULL WHERE tenant = ? AND status >= 0",
        [tenant],
    )? as u64)
}

/// Removes some of what a tenant has that is closed.
pub(super) fn delete_step(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    let next: Option<i64> = db
        .query_row("SELECT number FROM job WHERE tenant = ? AND status = -1 LIMIT 1", [tenant], |row| {
            row.get(0)
        })
        .optional()?;
    next.map_or(Ok(0), |number| remove(db, number))
}

/// A started job.
struct Found {
    number: i64,
    owner: String,
    status: i64,
    priority: i64,
    skipped: bool,
    traceparent: Option<String>,
}

impl Found {
    const fn runs(&self) -> bool {
        self.status < codec::FIRST_ENDED
    }

    /// What a person ended stays ended.
    fn may_run_again(&self, tenant: &str) -> bool {
        let cancelled = self.status == codec::status_number(Status::Cancelled);
        self.owner == tenant && !self.skipped && !cancelled
    }
}

fn find(db: &Connection, job: JobId) -> Result<Option<Found>, JobError> {
    Ok(db
        .prepare_cached(
            "SELECT number, tenant, status, priority, skipped, traceparent FROM job WHERE id = ? AND status >= 0",
        )?
        .query_row([job.0], |row| {
            Ok(Found {
                number: row.get(0)?,
                owner: row.get(1)?,
                status: row.get(2)?,
                priority: row.get(3)?,
                skipped: row.get(4)?,
                traceparent: row.get(5)?,
            })
        })
        .optional()?)
}
