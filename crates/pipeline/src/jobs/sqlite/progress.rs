//! Results of stages. Each is written once: who comes second is told where the document stands.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{key, now};
use crate::{
    ChunkSpan, DocumentOutcome, DocumentState, JobError, RetryNote, Stage, Status, TaskId, Vectors,
    WriteResult,
    jobs::codec::{self, Ended, FIRST_END, stage_number, state_number},
};

/// A document's row, found.
struct Found {
    number: i64,
    key: i64,
    state: i64,
    chunks: Option<u64>,
    since_ms: u64,
}

/// The document of a started job.
fn find(db: &Connection, task: TaskId) -> Result<Option<Found>, JobError> {
    let number: Option<i64> = db
        .prepare_cached("SELECT number FROM job WHERE id = ? AND status >= 0")?
        .query_row([task.job.0], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(None) };
    let key = key(number, task.item);
    Ok(db
        .prepare_cached("SELECT state, chunks, since_ms FROM document WHERE key = ?")?
        .query_row([key], |row| {
            Ok(Found { number, key, state: row.get(0)?, chunks: row.get(1)?, since_ms: row.get(2)? })
        })
        .optional()?)
}

pub(super) fn put_chunks(
    db: &Connection,
    task: TaskId,
    chunks: &[ChunkSpan],
) -> Result<WriteResult, JobError> {
    let Some(found) = find(db, task)? else { return Ok(WriteResult::JobDeleted) };
    if found.state != stage_number(Stage::Chunking) {
        return Ok(WriteResult::Already(codec::state(found.state)?));
    }
    db.prepare_cached("UPDATE content SET spans = ?2 WHERE key = ?1")?
        .execute(params![found.key, codec::spans(chunks)])?;
    db.prepare_cached(
        "UPDATE document SET state = ?2, chunks = ?3, again_at_ms = NULL, touched_at_ms = ?4 WHERE key = ?1",
    )?
    .execute(params![found.key, stage_number(Stage::Embedding), chunks.len(), now()])?;
    count(
        db,
        found.number,
        &Move { chunks: chunks.len() as i64, ..Move::new(found.state, Stage::Embedding.into()) },
    )?;
    Ok(WriteResult::Written)
}

pub(super) fn put_vectors(db: &Connection, task: TaskId, vectors: &Vectors) -> Result<WriteResult, JobError> {
    let Some(found) = find(db, task)? else { return Ok(WriteResult::JobDeleted) };
    if found.state != stage_number(Stage::Embedding) {
        return Ok(WriteResult::Already(codec::state(found.state)?));
    }
    db.prepare_cached("UPDATE content SET vectors_head = ?2, vectors = ?3 WHERE key = ?1")?
        .execute(params![found.key, codec::vectors_head(vectors), codec::vectors_data(vectors)])?;
    db.prepare_cached(
        "UPDATE document SET state = ?2, again_at_ms = NULL, touched_at_ms = ?3 WHERE key = ?1",
    )?
    .execute(params![found.key, stage_number(Stage::Storage), now()])?;
    count(db, found.number, &Move::new(found.state, Stage::Storage.into()))?;
    Ok(WriteResult::Written)
}

/// What became of an end, and of its job if that was the last one.
pub(super) fn finish(
    db: &Connection,
    (task, end): &(TaskId, DocumentOutcome),
) -> Result<(WriteResult, Option<Status>), JobError> {
    let Some(found) = find(db, *task)? else { return Ok((WriteResult::JobDeleted, None)) };
    let Ended { state, chunks, reason, failed } = Ended::of(end);
    let since = failed.map_or(found.since_ms, |(_, since)| since);
    if found.state >= FIRST_END || since < found.since_ms {
        return Ok((WriteResult::Already(codec::state(found.state)?), None));
    }
    let chunks = chunks.or(found.chunks);
    db.prepare_cached(
        "UPDATE document SET state = ?2, chunks = ?3, failed_at = ?4, code = ?5, message = ?6, since_ms = ?7,
                             attempts = attempts + ?8, again_at_ms = NULL, touched_at_ms = ?9 WHERE key = ?1",
    )?
    .execute(params![
        found.key,
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
        db.prepare_cached("DELETE FROM content WHERE key = ?")?.execute([found.key])?;
    }
    let known = |chunks: Option<u64>| chunks.unwrap_or(0) as i64;
    let stored = if state == DocumentState::Stored { known(chunks) } else { 0 };
    let moved = Move { chunks: known(chunks) - known(found.chunks), stored, ..Move::new(found.state, state) };
    Ok((WriteResult::Written, count(db, found.number, &moved)?))
}

pub(super) fn note(db: &Connection, note: &RetryNote) -> Result<(), JobError> {
    let RetryNote { task, reason, charged, retry_at_ms: again_at_ms } = note;
    let Some(found) = find(db, *task)? else { return Ok(()) };
    db.prepare_cached(
        "UPDATE document SET code = ?2, message = ?3, attempts = attempts + ?4, again_at_ms = ?5, touched_at_ms = ?6
         WHERE key = ?1 AND state < 3",
    )?
    .execute(params![found.key, reason.code, reason.message, charged, again_at_ms, now()])?;
    Ok(())
}

/// Whether nobody's claim held, which is ours now.
pub(super) fn claim(db: &Connection, what: &str, period: i64) -> Result<bool, JobError> {
    let now = now();
    let claimed = db.execute(
        "INSERT INTO claim (what, until_ms) VALUES (?1, ?2)
         ON CONFLICT (what) DO UPDATE SET until_ms = ?2 WHERE until_ms <= ?3",
        params![what, now.saturating_add(period), now],
    )?;
    Ok(claimed == 1)
}

impl From<Stage> for DocumentState {
    fn from(stage: Stage) -> Self {
        Self::At(stage)
    }
}

/// A document goes from one state to another.
struct Move {
    from: i64,
    to: i64,
    /// Chunks that are known more than before.
    chunks: i64,
    /// Chunks that are stored.
    stored: i64,
}

impl Move {
    fn new(from: i64, to: DocumentState) -> Self {
        Self { from, to: state_number(to), chunks: 0, stored: 0 }
    }
}

/// Keeps a job's counts in step.
fn count(db: &Connection, number: i64, moved: &Move) -> Result<Option<Status>, JobError> {
    let Move { from, to, chunks, stored } = moved;
    let now = now();
    db.prepare_cached(&format!(
        "UPDATE job SET d{from} = d{from} - 1, d{to} = d{to} + 1, chunks = chunks + ?2,
             stored_chunks = stored_chunks + ?3, status = 1, started_at_ms = coalesce(started_at_ms, ?4)
         WHERE number = ?1"
    ))?
    .execute(params![number, chunks, stored, now])?;
    if *to >= FIRST_END {
        db.prepare_cached(
            "UPDATE job SET
                 last_minute = CASE ?2 - minute WHEN 0 THEN last_minute WHEN 1 THEN this_minute ELSE 0 END,
                 this_minute = CASE ?2 - minute WHEN 0 THEN this_minute + 1 ELSE 1 END,
                 minute = ?2
             WHERE number = ?1",
        )?
        .execute(params![number, now / 60_000])?;
        return settle(db, number, now);
    }
    Ok(None)
}

/// Ends a job whose last document has ended, and says how.
pub(super) fn settle(db: &Connection, number: i64, now: i64) -> Result<Option<Status>, JobError> {
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
        .query_row(params![number, now], |row| row.get(0))
        .optional()?;
    ended.map(codec::status).transpose()
}
