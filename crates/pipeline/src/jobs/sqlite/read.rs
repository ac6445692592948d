//! Reads jobs and documents, each call in one snapshot.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};

use super::{SqliteJobs, intake::decompress, item, key, keys, now};
use crate::{
    Chunking, DocumentRow, DocumentState, Job, JobError, JobId, JobOp, JobReader, JobSpec, LoadedDocument,
    NewDocument, Status, TaskId, Unfinished,
    jobs::{
        Loaded, Page,
        codec::{self, STATES, state_number, status_number, unreadable},
    },
};

impl JobReader for SqliteJobs {
    fn job<'a>(&'a self, tenant: &'a str, job: JobId) -> JobOp<'a, Option<Job>> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| find_job(db, &tenant, job)))
    }

    fn jobs<'a>(&'a self, tenant: &'a str, page: Page<Status, JobId>) -> JobOp<'a, Vec<Job>> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| jobs(db, &tenant, page)))
    }

    fn documents(&self, job: JobId, page: Page<DocumentState, u32>) -> JobOp<'_, Vec<DocumentRow>> {
        Box::pin(self.read(move |db| documents(db, job, page)))
    }

    fn find_by_idempotency_key<'a>(&'a self, idempotency_key: &'a str) -> JobOp<'a, Vec<Job>> {
        let key = idempotency_key.to_owned();
        Box::pin(self.read(move |db| find_by_idempotency_key(db, &key)))
    }

    fn unfinished_jobs<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        let tenant = tenant.to_owned();
        Box::pin(self.read(move |db| unfinished_jobs(db, &tenant)))
    }

    fn skipped(&self, job: JobId) -> JobOp<'_, bool> {
        Box::pin(self.read(move |db| skipped(db, job)))
    }
}

const JOB: &str =
    "id, tenant, collection, provider, model, dimensions, method, size, overlap, unit, priority, status,
    chunks, stored_chunks, submitted_at_ms, started_at_ms, ended_at_ms, minute, this_minute, last_minute,
    idempotency_key, d0, d1, d2, d3, d4, d5, d6, d7";

/// Number of columns before `d0`.
const BEFORE_COUNTS: usize = 21;

fn find_job(db: &Connection, tenant: &str, job: JobId) -> Result<Option<Job>, JobError> {
    Ok(db
        .prepare_cached(&format!("SELECT {JOB} FROM job WHERE id = ? AND tenant = ? AND status >= 0"))?
        .query_row(params![job.0, tenant], read_job)
        .optional()?)
}

fn jobs(db: &Connection, tenant: &str, page: Page<Status, JobId>) -> Result<Vec<Job>, JobError> {
    let after = page.after.map_or(uuid::Uuid::max(), |job| job.0);
    let mut query = db.prepare_cached(&format!(
        "SELECT {JOB} FROM job WHERE tenant = ?1 AND id < ?2 AND status >= 0 AND (?3 IS NULL OR status = ?3)
         ORDER BY id DESC LIMIT ?4"
    ))?;
    let rows =
        query.query_map(params![tenant, after, page.state.map(status_number), page.limit], read_job)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn find_by_idempotency_key(db: &Connection, idempotency_key: &str) -> Result<Vec<Job>, JobError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {JOB} FROM job WHERE idempotency_key = ? AND status >= 0 ORDER BY id DESC LIMIT 100"
    ))?;
    let rows = query.query_map([idempotency_key], read_job)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn unfinished_jobs(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    Ok(db
        .prepare_cached("SELECT count(*) FROM job WHERE status IN (0, 1) AND tenant = ?")?
        .query_row([tenant], |row| row.get(0))?)
}

fn skipped(db: &Connection, job: JobId) -> Result<bool, JobError> {
    let skipped = db
        .query_row("SELECT skipped FROM job WHERE id = ? AND status >= 0", [job.0], |row| row.get(0))
        .optional()?;
    Ok(skipped.unwrap_or(false))
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let mut documents = BTreeMap::new();
    for (index, state) in STATES.into_iter().enumerate() {
        documents.insert(state, row.get(BEFORE_COUNTS + index)?);
    }
    Ok(Job {
        id: JobId(row.get(0)?),
        tenant: row.get(1)?,
        plan: read_plan(row, 2)?,
        priority: codec::priority(row.get(10)?),
        status: codec::status(row.get(11)?).map_err(|error| invalid(11, error))?,
        documents,
        chunks: row.get(12)?,
        stored_chunks: row.get(13)?,
        submitted_at_ms: row.get(14)?,
        started_at_ms: row.get(15)?,
        ended_at_ms: row.get(16)?,
        ended_last_minute: ended_last_minute(now(), row.get(17)?, row.get(18)?, row.get(19)?),
        idempotency_key: row.get(20)?,
    })
}

/// Estimates the count of the last sixty seconds from the counts of the minute `minute` and of the one before it.
fn ended_last_minute(now: i64, minute: i64, this_minute: u64, last_minute: u64) -> u64 {
    let (this_minute, last_minute) = match now / 60_000 - minute {
        0 => (this_minute, last_minute),
        1 => (0, this_minute),
        _ => return 0,
    };
    let left = 60_000 - (now % 60_000).unsigned_abs();
    this_minute + (last_minute * left).div_ceil(60_000)
}

fn read_plan(row: &Row<'_>, first: usize) -> rusqlite::Result<JobSpec> {
    Ok(JobSpec {
        collection: row.get(first)?,
        provider: row.get(first + 1)?,
        model: row.get(first + 2)?,
        dimensions: row.get(first + 3)?,
        chunking: Chunking {
            method: row.get(first + 4)?,
            size: row.get(first + 5)?,
            overlap: row.get(first + 6)?,
            unit: row.get(first + 7)?,
        },
    })
}

fn documents(
    db: &Connection,
    job: JobId,
    page: Page<DocumentState, u32>,
) -> Result<Vec<DocumentRow>, JobError> {
    let Some(number) = number(db, job)? else { return Ok(Vec::new()) };
    let (first, last) = keys(number);
    let after = page.after.map_or(first - 1, |item| key(number, item));
    let state = page.state.map(state_number);
    // Few documents have failed, and an index has only those. The planner uses it for the literal, not for ?3.
    let state_is = match state {
        Some(4) => "state = 4 AND state = ?3",
        _ => "(?3 IS NULL OR state = ?3)",
    };
    let mut query = db.prepare_cached(&format!(
        "SELECT key, id, state, chunks, code, message, attempts, again_at_ms FROM document
         WHERE key > ?1 AND key <= ?2 AND {state_is} ORDER BY key LIMIT ?4"
    ))?;
    let rows = query.query_map(params![after, last, state, page.limit], |row| {
        Ok(DocumentRow {
            item: item(row.get(0)?),
            id: row.get(1)?,
            state: codec::state(row.get(2)?).map_err(|error| invalid(2, error))?,
            chunks: row.get(3)?,
            reason: codec::reason(row.get(4)?, row.get(5)?),
            attempts: row.get(6)?,
            retry_at_ms: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn load(db: &Connection, tasks: &[TaskId]) -> Vec<Loaded> {
    let mut jobs = HashMap::new();
    let load = |task: &TaskId| {
        let job = match jobs.entry(task.job) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(load_job(db, task.job)?),
        };
        job.as_ref().map_or(Ok(None), |job| load_document(db, job, task.item))
    };
    tasks.iter().map(load).collect()
}

/// What the documents of a job have in common.
struct LoadedJob {
    number: i64,
    tenant: Arc<str>,
    plan: Arc<JobSpec>,
}

fn load_job(db: &Connection, job: JobId) -> Result<Option<LoadedJob>, JobError> {
    Ok(db
        .prepare_cached(
            "SELECT number, tenant, collection, provider, model, dimensions, method, size, overlap, unit
             FROM job WHERE id = ? AND status >= 0",
        )?
        .query_row([job.0], |row| {
            Ok(LoadedJob { number: row.get(0)?, tenant: row.get(1)?, plan: Arc::new(read_plan(row, 2)?) })
        })
        .optional()?)
}

fn load_document(db: &Connection, job: &LoadedJob, item: u32) -> Loaded {
    let mut query = db.prepare_cached(
        "SELECT id, state, bytes, text, packed, metadata, content_type, spans, vectors_head, vectors
         FROM document LEFT JOIN content USING (key) WHERE key = ?",
    )?;
    let mut rows = query.query([key(job.number, item)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let text = match row.get_ref(3)?.as_blob_or_null().map_err(unreadable)? {
        Some(stored) => decompress(stored, row.get(4)?, row.get(2)?)?,
        None => String::new(),
    };
    let metadata: Option<String> = row.get(5)?;
    let spans: Option<String> = row.get(7)?;
    let vectors =
        match (row.get::<_, Option<String>>(8)?, row.get_ref(9)?.as_blob_or_null().map_err(unreadable)?) {
            (Some(head), Some(data)) => Some(codec::read_vectors(&head, data)?),
            _ => None,
        };
    Ok(Some(LoadedDocument {
        tenant: Arc::clone(&job.tenant),
        plan: Arc::clone(&job.plan),
        state: codec::state(row.get(1)?)?,
        document: NewDocument {
            id: row.get(0)?,
            text,
            metadata: metadata
                .map_or(Ok(serde_json::Map::new()), |text| serde_json::from_str(&text))
                .map_err(unreadable)?,
            content_type: row.get(6)?,
        },
        chunks: spans.map(|spans| codec::read_spans(&spans)).transpose()?,
        vectors,
    }))
}

pub(super) fn unfinished(
    db: &Connection,
    touched_before: i64,
    after: Option<TaskId>,
    limit: usize,
) -> Result<Vec<Unfinished>, JobError> {
    let (after_job, after_item) =
        after.map_or((uuid::Uuid::nil(), -1), |task| (task.job.0, i64::from(task.item)));
    let mut jobs = db.prepare_cached(
        "SELECT number, id, tenant, priority, traceparent FROM job WHERE status IN (0, 1) AND id >= ? ORDER BY id",
    )?;
    let mut documents = db.prepare_cached(
        "SELECT key, state, bytes, since_ms FROM document
         WHERE state < 3 AND key > ? AND key <= ? AND touched_at_ms <= ? ORDER BY key LIMIT ?",
    )?;
    let mut found = Vec::new();
    let mut jobs = jobs.query([after_job])?;
    while let Some(job) = jobs.next()? {
        let number: i64 = job.get(0)?;
        let id = JobId(job.get(1)?);
        let tenant: Arc<str> = job.get(2)?;
        let priority = codec::priority(job.get(3)?);
        let traceparent: Option<Arc<str>> = job.get(4)?;
        let (first, last) = keys(number);
        let after = if id.0 == after_job { first + after_item } else { first - 1 };
        let mut rows = documents.query(params![after, last, touched_before, limit - found.len()])?;
        while let Some(row) = rows.next()? {
            found.push(Unfinished {
                task: TaskId { job: id, item: item(row.get(0)?) },
                tenant: Arc::clone(&tenant),
                stage: codec::stage(row.get(1)?)?,
                priority,
                bytes: row.get(2)?,
                since_ms: row.get(3)?,
                traceparent: traceparent.clone(),
            });
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// How many jobs have expired.
pub(super) fn count_expired(db: &Connection, ended: i64, abandoned: i64) -> Result<u64, JobError> {
    let count = "SELECT (SELECT count(*) FROM job WHERE ended_at_ms < ?1)
                      + (SELECT count(*) FROM job WHERE status = -1 AND submitted_at_ms < ?2)";
    Ok(db.query_row(count, [ended, abandoned], |row| row.get(0))?)
}

fn number(db: &Connection, job: JobId) -> Result<Option<i64>, JobError> {
    Ok(db
        .prepare_cached("SELECT number FROM job WHERE id = ? AND status >= 0")?
        .query_row([job.0], |row| row.get(0))
        .optional()?)
}

fn invalid(column: usize, error: JobError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::ended_last_minute;

    #[test]
    fn the_last_minute_slides() {
        let minute = 60_000;
        assert_eq!(ended_last_minute(10 * minute, 10, 5, 60), 65);
        assert_eq!(ended_last_minute(10 * minute + 30_000, 10, 5, 60), 35);
        assert_eq!(ended_last_minute(11 * minute + 45_000, 10, 60, 7), 15);
        assert_eq!(ended_last_minute(12 * minute, 10, 60, 7), 0);
    }
}
