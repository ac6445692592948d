//! Removes what is no longer needed, and serves the reconciler. Long work is done in pages, so that other callers do
//! not wait for the file.

use embeddery_core::to_ms;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{SqliteJobs, before, file, keys, now, read, transitions};
use crate::{JobError, JobId, JobMaintenance, JobMetrics, JobOp, TaskId, Unfinished};

/// Maximum rows that one transaction removes.
const PAGE: usize = 500;

/// Number of free pages of the file from which on they are returned to the file system, and maximum that one step
/// returns.
const VACUUM_PAGES: u64 = 256;

impl JobMaintenance for SqliteJobs {
    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>> {
        Box::pin(self.read(move |db| read::unfinished(db, before(untouched), after, limit)))
    }

    fn claim_period(&self, work: &'static str, period: Duration) -> JobOp<'_, bool> {
        let period = to_ms(period).cast_signed();
        Box::pin(self.write_relaxed(move |db| claim_period(db, work, period)))
    }

    fn purge_expired(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64> {
        Box::pin(async move {
            let (ended, abandoned) = (before(ended), before(abandoned));
            let expired = self.read(move |db| read::count_expired(db, ended, abandoned)).await?;
            if self.in_steps(move |db| purge_page(db, ended, abandoned)).await? > 0 {
                self.in_steps(vacuum_page).await?;
            }
            Ok(expired)
        })
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        let (tenant, closing) = (tenant.to_owned(), tenant.to_owned());
        Box::pin(async move {
            let jobs = self.write_durable(move |db| close_tenant(db, &closing)).await?;
            self.in_steps(move |db| delete_page(db, &tenant)).await?;
            Ok(jobs)
        })
    }

    fn metrics(&self) -> &JobMetrics {
        &self.metrics
    }

    fn health(&self) -> JobOp<'_, ()> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            self.read(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
        })
    }
}

/// Claims work until `period` is over, unless another process holds the claim. Returns whether it did.
fn claim_period(db: &Connection, work: &str, period: i64) -> Result<bool, JobError> {
    let now = now();
    let claimed = db.execute(
        "INSERT INTO claim (what, until_ms) VALUES (?1, ?2)
         ON CONFLICT (what) DO UPDATE SET until_ms = ?2 WHERE until_ms <= ?3",
        params![work, now.saturating_add(period), now],
    )?;
    Ok(claimed == 1)
}

/// Removes texts and results of a job's documents that were cancelled or skipped, up to a page. Returns how many rows.
pub(super) fn remove_content(db: &Connection, job: JobId) -> Result<u64, JobError> {
    transitions::find(db, job)?.map_or(Ok(0), |job| remove_content_of(db, job.number))
}

fn remove_content_of(db: &Connection, number: i64) -> Result<u64, JobError> {
    let (from, to) = keys(number);
    let removed = db
        .prepare_cached(
            "DELETE FROM content WHERE key IN (
                 SELECT content.key FROM content JOIN document USING (key)
                 WHERE content.key BETWEEN ?1 AND ?2 AND document.state IN (5, 6) LIMIT ?3)",
        )?
        .execute(params![from, to, PAGE])?;
    Ok(removed as u64)
}

/// Removes a page of a job that was opened and has not started.
pub(super) fn remove_open(db: &Connection, job: JobId) -> Result<u64, JobError> {
    let open: Option<i64> = db
        .query_row("SELECT number FROM job WHERE id = ? AND status = -1", [job.0], |row| row.get(0))
        .optional()?;
    open.map_or(Ok(0), |number| remove_page(db, number))
}

/// Removes a page of a job's rows, the job's own row last. Returns how many rows; 0 when none is left.
fn remove_page(db: &Connection, number: i64) -> Result<u64, JobError> {
    let (from, to) = keys(number);
    let mut removed = 0;
    for table in ["content", "document"] {
        let delete = format!(
            "DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE key BETWEEN ? AND ? LIMIT ?)"
        );
        removed += db.prepare_cached(&delete)?.execute(params![from, to, PAGE])?;
    }
    if removed == 0 {
        removed = db.execute("DELETE FROM job WHERE number = ?", [number])?;
    }
    Ok(removed as u64)
}

/// Removes a page of what has expired. Returns how many rows; 0 when none is left.
fn purge_page(db: &Connection, ended: i64, abandoned: i64) -> Result<u64, JobError> {
    let expired: Option<i64> = db
        .prepare_cached(
            "SELECT number FROM job WHERE ended_at_ms < ?1
             UNION ALL SELECT number FROM job WHERE status = -1 AND submitted_at_ms < ?2 LIMIT 1",
        )?
        .query_row([ended, abandoned], |row| row.get(0))
        .optional()?;
    if let Some(number) = expired {
        return remove_page(db, number);
    }
    // A process that crashes after it has cancelled a job leaves the job's content.
    let left: Option<i64> = db
        .prepare_cached(
            "SELECT number FROM job WHERE ended_at_ms IS NOT NULL AND d5 + d6 > 0 AND EXISTS (
                 SELECT 1 FROM content JOIN document USING (key)
                 WHERE content.key BETWEEN number << 32 AND ((number + 1) << 32) - 1 AND state IN (5, 6)) LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    left.map_or(Ok(0), |number| remove_content_of(db, number))
}

/// Returns free pages to the file system. Returns how many; 0 when few are free.
fn vacuum_page(db: &Connection) -> Result<u64, JobError> {
    let free = |db: &Connection| db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u64>(0));
    let before = free(db)?;
    if before < VACUUM_PAGES {
        return Ok(0);
    }
    let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(before - free(db)?)
}

/// Makes a tenant's jobs invisible and stops work on them. Returns how many.
fn close_tenant(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    Ok(db.execute(
        "UPDATE job SET status = -1, submitted_at_ms = 0, ended_at_ms = NULL WHERE tenant = ? AND status >= 0",
        [tenant],
    )? as u64)
}

/// Removes a page of a tenant's invisible jobs. Returns how many rows; 0 when none is left.
fn delete_page(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    let next: Option<i64> = db
        .query_row("SELECT number FROM job WHERE tenant = ? AND status = -1 LIMIT 1", [tenant], |row| {
            row.get(0)
        })
        .optional()?;
    next.map_or(Ok(0), |number| remove_page(db, number))
}
