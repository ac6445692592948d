//! Loads documents, and writes the results of stages. A result is written once: a second writer gets the document's
//! state.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{SqliteJobs, key, now, read};
use crate::{
    ChunkSpan, DocumentOutcome, DocumentState, JobError, JobOp, JobProgress, Loaded, RetryNote, Stage,
    Status, TaskId, Vectors, WriteResult,
    jobs::codec::{self, EndColumns, FIRST_END, stage_number, state_number},
};

impl JobProgress for SqliteJobs {
    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>> {
        Box::pin(self.read(move |db| Ok(read::load(db, &tasks))))
    }

    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(self.write_each(results, |db, (task, chunks)| put_chunks(db, *task, chunks)))
    }

    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(self.write_each(results, |db, (task, vectors)| put_vectors(db, *task, vectors)))
    }

    fn finish(&self, outcomes: Vec<(TaskId, DocumentOutcome)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(async move {
            let finished =
                self.write_each(outcomes, |db, (task, outcome)| finish(db, *task, outcome)).await?;
            let mut results = Vec::with_capacity(finished.len());
            for (result, ended) in finished {
                self.metrics.count(ended);
                results.push(result);
            }
            Ok(results)
        })
    }

    fn record_retry(&self, notes: Vec<RetryNote>) -> JobOp<'_, ()> {
        Box::pin(async move { self.write_each(notes, record_retry).await.map(drop) })
    }
}

/// What a write needs to know of a document.
struct CurrentDocument {
    /// The job's number.
    job: i64,
    key: i64,
    state: i64,
    chunks: Option<u64>,
    since_ms: u64,
}

/// The document of a started job.
fn find(db: &Connection, task: TaskId) -> Result<Option<CurrentDocument>, JobError> {
    let number: Option<i64> = db
        .prepare_cached("SELECT number FROM job WHERE id = ? AND status >= 0")?
        .query_row([task.job.0], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(None) };
    let key = key(number, task.item);
    Ok(db
        .prepare_cached("SELECT state, chunks, since_ms FROM document WHERE key = ?")?
        .query_row([key], |row| {
            Ok(CurrentDocument {
                job: number,
                key,
                state: row.get(0)?,
                chunks: row.get(1)?,
                since_ms: row.get(2)?,
            })
        })
        .optional()?)
}

fn put_chunks(db: &Connection, task: TaskId, chunks: &[ChunkSpan]) -> Result<WriteResult, JobError> {
    let Some(document) = find(db, task)? else { return Ok(WriteResult::JobDeleted) };
    if document.state != stage_number(Stage::Chunking) {
        return Ok(WriteResult::Already(codec::state(document.state)?));
    }
    db.prepare_cached("UPDATE content SET spans = ?2 WHERE key = ?1")?
        .execute(params![document.key, codec::spans(chunks)])?;
    db.prepare_cached(
        "UPDATE document SET state = ?2, chunks = ?3, again_at_ms = NULL, touched_at_ms = ?4 WHERE key = ?1",
    )?
    .execute(params![document.key, stage_number(Stage::Embedding), chunks.len(), now()])?;
    let moved = Move::new(document.state, Stage::Embedding.into());
    count(db, document.job, &Move { chunks: chunks.len() as i64, ..moved })?;
    Ok(WriteResult::Written)
}

fn put_vectors(db: &Connection, task: TaskId, vectors: &Vectors) -> Result<WriteResult, JobError> {
    let Some(document) = find(db, task)? else { return Ok(WriteResult::JobDeleted) };
    if document.state != stage_number(Stage::Embedding) {
        return Ok(WriteResult::Already(codec::state(document.state)?));
    }
    db.prepare_cached("UPDATE content SET vectors_head = ?2, vectors = ?3 WHERE key = ?1")?
        .execute(params![document.key, codec::vectors_head(vectors), codec::vectors_data(vectors)])?;
    db.prepare_cached(
        "UPDATE document SET state = ?2, again_at_ms = NULL, touched_at_ms = ?3 WHERE key = ?1",
    )?
    .execute(params![document.key, stage_number(Stage::Storage), now()])?;
    count(db, document.job, &Move::new(document.state, Stage::Storage.into()))?;
    Ok(WriteResult::Written)
}

/// Ends a document. Returns the result, and the status of its job if it was the job's last document.
fn finish(
    db: &Connection,
    task: TaskId,
    outcome: &DocumentOutcome,
) -> Result<(WriteResult, Option<Status>), JobError> {
    let Some(document) = find(db, task)? else { return Ok((WriteResult::JobDeleted, None)) };
    let EndColumns { state, chunks, reason, failed } = EndColumns::from_outcome(outcome);
    let since = failed.map_or(document.since_ms, |(_, since)| since);
    if document.state >= FIRST_END || since < document.since_ms {
        return Ok((WriteResult::Already(codec::state(document.state)?), None));
    }
    let chunks = chunks.or(document.chunks);
    db.prepare_cached(
        "UPDATE document SET state = ?2, chunks = ?3, failed_at = ?4, code = ?5, message = ?6, since_ms = ?7,
                             attempts = attempts + ?8, again_at_ms = NULL, touched_at_ms = ?9 WHERE key = ?1",
    )?
    .execute(params![
        document.key,
        state_number(state),
        chunks,
        failed.map(|(stage, _)| stage_number(stage)),
        reason.map(|reason| &*reason.code),
        reason.map(|reason| &reason.message),
        since,
        failed.is_some(),
        now()
    ])?;
    if failed.is_none() {
        db.prepare_cached("DELETE FROM content WHERE key = ?")?.execute([document.key])?;
    }
    let count_of = |chunks: Option<u64>| chunks.unwrap_or(0) as i64;
    let stored = if state == DocumentState::Stored { count_of(chunks) } else { 0 };
    let new_chunks = count_of(chunks) - count_of(document.chunks);
    let moved = Move { chunks: new_chunks, stored, ..Move::new(document.state, state) };
    Ok((WriteResult::Written, count(db, document.job, &moved)?))
}

fn record_retry(db: &Connection, note: &RetryNote) -> Result<(), JobError> {
    let RetryNote { task, reason, charged, retry_at_ms } = note;
    let Some(document) = find(db, *task)? else { return Ok(()) };
    db.prepare_cached(
        "UPDATE document SET code = ?2, message = ?3, attempts = attempts + ?4, again_at_ms = ?5, touched_at_ms = ?6
         WHERE key = ?1 AND state < 3",
    )?
    .execute(params![document.key, reason.code, reason.message, charged, retry_at_ms, now()])?;
    Ok(())
}

/// The step of a document from one state to another.
struct Move {
    from: i64,
    to: i64,
    /// Chunks that the document has now and did not have before.
    chunks: i64,
    /// Chunks that are stored now.
    stored: i64,
}

impl Move {
    fn new(from: i64, to: DocumentState) -> Self {
        Self { from, to: state_number(to), chunks: 0, stored: 0 }
    }
}

/// Counts a step in the job's row. Returns the job's status if it ended the job.
fn count(db: &Connection, job: i64, moved: &Move) -> Result<Option<Status>, JobError> {
    let Move { from, to, chunks, stored } = moved;
    let now = now();
    db.prepare_cached(&format!(
        "UPDATE job SET d{from} = d{from} - 1, d{to} = d{to} + 1, chunks = chunks + ?2,
             stored_chunks = stored_chunks + ?3, status = 1, started_at_ms = coalesce(started_at_ms, ?4)
         WHERE number = ?1"
    ))?
    .execute(params![job, chunks, stored, now])?;
    if *to >= FIRST_END {
        db.prepare_cached(
            "UPDATE job SET
                 last_minute = CASE ?2 - minute WHEN 0 THEN last_minute WHEN 1 THEN this_minute ELSE 0 END,
                 this_minute = CASE ?2 - minute WHEN 0 THEN this_minute + 1 ELSE 1 END,
                 minute = ?2
             WHERE number = ?1",
        )?
        .execute(params![job, now / 60_000])?;
        return settle(db, job, now);
    }
    Ok(None)
}

/// Ends a job if its last document has ended. Returns its status then.
pub(super) fn settle(db: &Connection, job: i64, now: i64) -> Result<Option<Status>, JobError> {
    let ended = db
        .prepare_cached(
            "UPDATE job SET ended_at_ms = ?2, status = CASE
             WHEN d6 > 0 THEN 5
             WHEN d4 = 0 AND d5 = 0 THEN 2
             WHEN d3 + d7 > 0 THEN 3
             WHEN d4 > 0 THEN 4
             ELSE 5 END
         WHERE number = ?1 AND d0 + d1 + d2 = 0 RETURNING status",
        )?
        .query_row(params![job, now], |row| row.get(0))
        .optional()?;
    ended.map(codec::status).transpose()
}
