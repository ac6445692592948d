//! A task's row of the table `task`: how it is read, and what is done with a row that cannot be read.

use std::sync::Arc;

use rusqlite::{Row, params};
use uuid::Uuid;

use super::{super::record, writer::Db};
use crate::{JobId, MESSAGE_VERSION, Stage, Task, TaskId};

/// The state of a task: the column `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// In its tenant's queue.
    Waiting = 0,
    /// Waits for a worker that runs nothing else.
    Exclusive = 1,
    /// Before a stage that drains.
    Held = 2,
    /// Until `due_ms`.
    Delayed = 3,
    /// A worker has it until `due_ms`.
    Leased = 4,
    /// A newer version of the program wrote it. `due_ms` is the version of the message: a worker that knows this
    /// version finds the task due.
    Newer = 5,
}

impl TaskState {
    const fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Waiting,
            1 => Self::Exclusive,
            2 => Self::Held,
            3 => Self::Delayed,
            4 => Self::Leased,
            _ => Self::Newer,
        }
    }
}

pub(super) struct TaskRow {
    /// The order of arrival, and the key.
    pub(super) seq: i64,
    /// The version of the message.
    pub(super) version: u32,
    pub(super) task: Task,
    pub(super) state: TaskState,
    pub(super) consumer: Option<String>,
    pub(super) token: Option<i64>,
    pub(super) cancelled: bool,
    /// The cost of its turn (the column `paid`), until the turn has a result; 0 otherwise.
    pub(super) charge: i64,
}

const COLUMNS: &str = "seq, version, job, item, tenant, stage, rank, bytes, attempts, deaths, enqueued_at_ms, \
                       traceparent, place, consumer, token, cancelled, paid";

/// The rows for which `condition` is true. A row that cannot be read becomes a dead letter, or is left to workers of
/// the newer version that wrote it.
pub(super) fn select(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<TaskRow>> {
    let mut statement = db.sql.prepare_cached(&format!("SELECT {COLUMNS} FROM task WHERE {condition}"))?;
    let (mut rows, mut found, mut unreadable) = (statement.query(values)?, Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(row) => found.push(row),
            Err(error) => unreadable.push((row.get(0)?, row.get::<_, i64>(1)?, error)),
        }
    }
    for (seq, version, error) in unreadable {
        if version > i64::from(MESSAGE_VERSION) {
            park_newer_version(db, seq)?;
        } else {
            dead_letter_unreadable(db, seq, &error.to_string())?;
        }
    }
    Ok(found)
}

/// The first row for which `condition` is true.
pub(super) fn first(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params + Copy,
) -> rusqlite::Result<Option<TaskRow>> {
    let condition = format!("{condition} LIMIT 1");
    loop {
        let before = db.sql.total_changes();
        let found = select(db, &condition, values)?.pop();
        // A row that could not be read is out of the way now: the next one is the first.
        if found.is_some() || db.sql.total_changes() == before {
            return Ok(found);
        }
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let id = TaskId { job: job_id(row.get(2)?), item: row.get(3)? };
    let version: u32 = row.get(1)?;
    // A newer version may know other priorities. `transitions::put` leaves such a rank as it is.
    let priority = |rank: i64| record::priority(u8::try_from(rank).ok()?);
    let newer = |_| (version > MESSAGE_VERSION).then_some(crate::Priority::Low);
    let task = Task {
        id,
        tenant: Arc::from(row.get_ref(4)?.as_str()?),
        stage: known(5, row.get(5)?, stage)?,
        priority: known(6, row.get(6)?, |rank| priority(rank).or_else(|| newer(rank)))?,
        bytes: row.get(7)?,
        attempts: row.get(8)?,
        deaths: row.get(9)?,
        enqueued_at_ms: row.get(10)?,
        traceparent: row.get_ref(11)?.as_str_or_null()?.map(Arc::from),
    };
    Ok(TaskRow {
        seq: row.get(0)?,
        version,
        task,
        state: TaskState::from_number(row.get(12)?),
        consumer: row.get(13)?,
        token: row.get(14)?,
        cancelled: row.get(15)?,
        charge: row.get(16)?,
    })
}

/// The meaning of a column's number; an error when it has none.
fn known<T>(column: usize, number: i64, meaning: impl Fn(i64) -> Option<T>) -> rusqlite::Result<T> {
    meaning(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Leaves a row to workers of the newer version that wrote it. The row itself does not change. A row of an unknown
/// stage is not touched.
fn park_newer_version(db: &Db<'_>, seq: i64) -> rusqlite::Result<()> {
    let (waiting, leased, newer) =
        (TaskState::Waiting as i64, TaskState::Leased as i64, TaskState::Newer as i64);
    db.sql.execute(
        "UPDATE lane SET waiting = waiting - (place = ?2), \
         waiting_bytes = waiting_bytes - (place = ?2) * task.bytes, leased = leased - (place = ?3) \
         FROM task WHERE seq = ?1 AND lane.stage = task.stage AND lane.tenant = task.tenant \
         AND task.stage IN (0, 1, 2)",
        [seq, waiting, leased],
    )?;
    db.sql.execute(
        "UPDATE task SET place = ?2, due_ms = version, consumer = NULL, token = NULL \
         WHERE seq = ?1 AND stage IN (0, 1, 2) AND place <> ?2",
        [seq, newer],
    )?;
    Ok(())
}

/// Makes a dead letter of a row that cannot be read, as it was found. The queue does not hold the document any more, so
/// the reconciler enqueues it again.
fn dead_letter_unreadable(db: &Db<'_>, seq: i64, problem: &str) -> rusqlite::Result<()> {
    tracing::error!(seq, problem, "a task of the queue cannot be read; it is a dead letter now");
    let message = format!("the queue's row cannot be read: {problem}; it was set aside as it was found");
    db.sql.execute(
        "INSERT INTO dead (stage, job, item, task, code, message, at_ms) SELECT MIN(MAX(stage, 0), 2), x'', \
         (SELECT COALESCE(MIN(item), 0) - 1 FROM dead WHERE job = x''), \
         json_object('v', version, 'job', hex(job), 'item', item, 'tenant', hex(tenant), 'stage', stage, 'rank', \
         rank, 'bytes', bytes, 'attempts', attempts, 'deaths', deaths, 'at', enqueued_at_ms), 'unreadable', ?2, ?3 \
         FROM task WHERE seq = ?1",
        params![seq, message, db.now],
    )?;
    db.sql.execute(
        "UPDATE lane SET items = items - 1, bytes = lane.bytes - task.bytes, waiting = waiting - (place = ?2), \
         waiting_bytes = waiting_bytes - (place = ?2) * task.bytes, leased = leased - (place = ?3) \
         FROM task WHERE seq = ?1 AND lane.stage = task.stage AND lane.tenant = task.tenant",
        [seq, TaskState::Waiting as i64, TaskState::Leased as i64],
    )?;
    db.sql.execute("DELETE FROM task WHERE seq = ?", [seq])?;
    Ok(())
}

pub(super) const fn stage_number(stage: Stage) -> i64 {
    match stage {
        Stage::Chunking => 0,
        Stage::Embedding => 1,
        Stage::Storage => 2,
    }
}

const fn stage(number: i64) -> Option<Stage> {
    match number {
        0 => Some(Stage::Chunking),
        1 => Some(Stage::Embedding),
        2 => Some(Stage::Storage),
        _ => None,
    }
}

pub(super) const fn job_id(bytes: [u8; 16]) -> JobId {
    JobId(Uuid::from_bytes(bytes))
}
