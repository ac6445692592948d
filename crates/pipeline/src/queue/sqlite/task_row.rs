//! A task's row, and its moves between places. Whatever its lane counts is counted in the step that moves the row.

use std::{sync::Arc, time::Duration};

use rusqlite::{Row, params};
use uuid::Uuid;

use super::{
    super::record,
    tenant_queue::{Change, change},
    writer::Db,
};
use crate::{JobId, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, MESSAGE_VERSION, Reason, Stage, Task, TaskId};

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// In its tenant's lane.
    Waiting,
    /// Waits for a process that runs nothing else.
    Alone,
    /// Before a stage that drains.
    Held,
    Delayed,
    Leased,
    /// Of a newer version: due for those who know it.
    Newer,
}

pub(super) struct Item {
    pub(super) seq: i64,
    pub(super) version: u32,
    pub(super) task: Task,
    pub(super) place: TaskState,
    pub(super) consumer: Option<String>,
    pub(super) token: Option<i64>,
    pub(super) cancelled: bool,
    /// What its turn has cost, until something came of it.
    pub(super) paid: i64,
}

const COLUMNS: &str = "seq, version, job, item, tenant, stage, rank, bytes, attempts, deaths, enqueued_at_ms, \
                       traceparent, place, consumer, token, cancelled, paid";

/// Items by a condition. What cannot be read is put aside, or left to those who know its version.
pub(super) fn select(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Item>> {
    let mut statement = db.sql.prepare_cached(&format!("SELECT {COLUMNS} FROM task WHERE {condition}"))?;
    let (mut rows, mut items, mut unreadable) = (statement.query(values)?, Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(item) => items.push(item),
            Err(error) => unreadable.push((row.get(0)?, row.get::<_, i64>(1)?, error)),
        }
    }
    for (seq, version, error) in unreadable {
        if version > i64::from(MESSAGE_VERSION) {
            leave(db, seq)?;
        } else {
            dead_letter_crashed(db, seq, &error.to_string())?;
        }
    }
    Ok(items)
}

/// One item by a condition.
pub(super) fn first(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params + Copy,
) -> rusqlite::Result<Option<Item>> {
    let condition = format!("{condition} LIMIT 1");
    loop {
        let before = db.sql.total_changes();
        let found = select(db, &condition, values)?.pop();
        if found.is_some() || db.sql.total_changes() == before {
            return Ok(found);
        }
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Item> {
    let id = TaskId { job: job(row.get(2)?), item: row.get(3)? };
    let version: u32 = row.get(1)?;
    // Of a newer version there may be other priorities: such a rank stays as it is, see `put`.
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
    let place = match row.get::<_, i64>(12)? {
        0 => TaskState::Waiting,
        1 => TaskState::Alone,
        2 => TaskState::Held,
        3 => TaskState::Delayed,
        4 => TaskState::Leased,
        _ => TaskState::Newer,
    };
    Ok(Item {
        seq: row.get(0)?,
        version,
        task,
        place,
        consumer: row.get(13)?,
        token: row.get(14)?,
        cancelled: row.get(15)?,
        paid: row.get(16)?,
    })
}

/// What a number stands for.
fn known<T>(column: usize, number: i64, meaning: impl Fn(i64) -> Option<T>) -> rusqlite::Result<T> {
    meaning(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Left to those who know its version, as it is, if it is at a stage of ours.
fn leave(db: &Db<'_>, seq: i64) -> rusqlite::Result<()> {
    db.sql.execute(
        "UPDATE lane SET waiting = waiting - (place = 0), waiting_bytes = waiting_bytes - (place = 0) * task.bytes, \
         leased = leased - (place = 4) FROM task WHERE seq = ? AND lane.stage = task.stage \
         AND lane.tenant = task.tenant AND task.stage IN (0, 1, 2)",
        [seq],
    )?;
    db.sql.execute(
        "UPDATE task SET place = 5, due_ms = version, consumer = NULL, token = NULL \
         WHERE seq = ? AND stage IN (0, 1, 2) AND place <> 5",
        [seq],
    )?;
    Ok(())
}

/// Puts aside what cannot be read, as found. The document is not held any more: it is enqueued again.
fn dead_letter_crashed(db: &Db<'_>, seq: i64, problem: &str) -> rusqlite::Result<()> {
    tracing::error!(seq, problem, "a task of the queue cannot be read");
    let message = format!("the queue's row cannot be read: {problem}; it was put aside as found");
    db.sql.execute(
        "INSERT INTO dead (stage, job, item, task, code, message, at_ms) SELECT MIN(MAX(stage, 0), 2), x'', \
         (SELECT COALESCE(MIN(item), 0) - 1 FROM dead WHERE job = x''), \
         json_object('v', version, 'job', hex(job), 'item', item, 'tenant', hex(tenant), 'stage', stage, 'rank', \
         rank, 'bytes', bytes, 'attempts', attempts, 'deaths', deaths, 'at', enqueued_at_ms), 'unreadable', ?2, ?3 \
         FROM task WHERE seq = ?1",
        params![seq, message, db.now],
    )?;
    db.sql.execute(
        "UPDATE lane SET items = items - 1, bytes = lane.bytes - task.bytes, waiting = waiting - (place = 0), \
         waiting_bytes = waiting_bytes - (place = 0) * task.bytes, leased = leased - (place = 4) \
         FROM task WHERE seq = ? AND lane.stage = task.stage AND lane.tenant = task.tenant",
        [seq],
    )?;
    db.sql.execute("DELETE FROM task WHERE seq = ?", [seq])?;
    Ok(())
}

/// A new task enters.
pub(super) fn insert(db: &Db<'_>, task: &Task, draining: bool) -> rusqlite::Result<()> {
    db.sql
        .prepare_cached(
            "INSERT INTO task (version, job, item, tenant, stage, rank, bytes, attempts, deaths, enqueued_at_ms, \
             traceparent, place, since_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            MESSAGE_VERSION,
            task.id.job.0.as_bytes(),
            task.id.item,
            task.tenant,
            number(task.stage),
            record::rank(task.priority),
            task.bytes as i64,
            task.attempts,
            task.deaths,
            task.enqueued_at_ms as i64,
            task.traceparent,
            // Nowhere yet: `enter` counts it.
            TaskState::Held as i64,
            db.now,
        ])?;
    let mut item = Item {
        seq: db.sql.last_insert_rowid(),
        version: MESSAGE_VERSION,
        task: task.clone(),
        place: TaskState::Held,
        consumer: None,
        token: None,
        cancelled: false,
        paid: 0,
    };
    let new = Change { items: 1, bytes: item.task.bytes as i64, ..Change::default() };
    if draining { change(db, &item.task, new) } else { enter_with(db, &mut item, new) }
}

/// Into its lane, or to those that must run alone; at its old place among them. A turn that came to nothing is given
/// back.
pub(super) fn enter(db: &Db<'_>, item: &mut Item) -> rusqlite::Result<()> {
    enter_with(db, item, Change::default())
}

fn enter_with(db: &Db<'_>, item: &mut Item, also: Change) -> rusqlite::Result<()> {
    let alone = item.task.deaths >= MAX_SHARED_CRASHES;
    let also = also + Change::turn(-std::mem::take(&mut item.paid));
    put(db, item, (if alone { TaskState::Alone } else { TaskState::Waiting }, None), also)
}

/// A worker ended over it, or its work broke off: then it waits this long.
pub(super) fn crashed(db: &Db<'_>, item: &mut Item, broke_off: Option<Duration>) -> rusqlite::Result<()> {
    (item.task.deaths, item.paid) = (item.task.deaths + 1, 0);
    if item.task.deaths >= MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
        let message = broke_off.map_or_else(super::super::died, |_| super::super::broke_off());
        return move_to_dead_letters(db, item, &Reason { code: "worker_died".into(), message });
    }
    match broke_off {
        Some(after) => delay(db, item, after),
        None => enter(db, item),
    }
}

/// Not before this pause is over.
pub(super) fn delay(db: &Db<'_>, item: &mut Item, after: Duration) -> rusqlite::Result<()> {
    let due = db.now.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX / 2));
    put(db, item, (TaskState::Delayed, Some(due)), Change::default())
}

/// Into a place, out of the one where it was; `also` is counted with it.
pub(super) fn put(
    db: &Db<'_>,
    item: &mut Item,
    (place, due_ms): (TaskState, Option<i64>),
    also: Change,
) -> rusqlite::Result<()> {
    let counted = also + occupancy_delta(item, -1);
    item.place = place;
    if place != TaskState::Leased {
        (item.consumer, item.token) = (None, None);
    }
    change(db, &item.task, counted + occupancy_delta(item, 1))?;
    let task = &item.task;
    db.sql
        .prepare_cached(
            "UPDATE task SET stage = ?, rank = iif(version > ?, rank, ?), bytes = ?, attempts = ?, deaths = ?, \
             place = ?, since_ms = ?, due_ms = ?, consumer = ?, token = ?, paid = ? WHERE seq = ?",
        )?
        .execute(params![
            number(task.stage),
            MESSAGE_VERSION,
            record::rank(task.priority),
            task.bytes as i64,
            task.attempts,
            task.deaths,
            place as i64,
            db.now,
            due_ms,
            item.consumer,
            item.token,
            item.paid,
            item.seq,
        ])?;
    Ok(())
}

/// On to another stage: into its lane there, or before it.
pub(super) fn promote(
    db: &Db<'_>,
    item: &mut Item,
    (stage, bytes): (Stage, u64),
    draining: bool,
) -> rusqlite::Result<()> {
    change(db, &item.task, departure_delta(item))?;
    (item.place, item.paid) = (TaskState::Held, 0);
    item.task = Task { stage, bytes, attempts: 0, deaths: 0, ..item.task.clone() };
    let new = Change { items: 1, bytes: bytes as i64, ..Change::default() };
    if draining { put(db, item, (TaskState::Held, None), new) } else { enter_with(db, item, new) }
}

/// Out of the queue.
pub(super) fn remove(db: &Db<'_>, item: &Item) -> rusqlite::Result<()> {
    change(db, &item.task, departure_delta(item))?;
    db.sql.prepare_cached("DELETE FROM task WHERE seq = ?")?.execute([item.seq])?;
    Ok(())
}

/// Out of the queue, to the dead letters.
pub(super) fn move_to_dead_letters(db: &Db<'_>, item: &Item, reason: &Reason) -> rusqlite::Result<()> {
    remove(db, item)?;
    db.sql
        .prepare_cached(
            "INSERT OR REPLACE INTO dead (stage, job, item, task, code, message, at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            number(item.task.stage),
            item.task.id.job.0.as_bytes(),
            item.task.id.item,
            record::write_task(&item.task),
            reason.code,
            reason.message,
            db.now,
        ])?;
    Ok(())
}

/// What an item's place counts for, once more or once less.
fn occupancy_delta(item: &Item, times: i64) -> Change {
    match item.place {
        TaskState::Waiting => {
            Change { waiting: times, waiting_bytes: times * item.task.bytes as i64, ..Change::default() }
        }
        TaskState::Leased => Change { leased: times, ..Change::default() },
        _ => Change::default(),
    }
}

/// All that an item counts for, less.
fn departure_delta(item: &Item) -> Change {
    occupancy_delta(item, -1) + Change { items: -1, bytes: -(item.task.bytes as i64), ..Change::default() }
}

pub(super) const fn number(stage: Stage) -> i64 {
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

pub(super) const fn job(bytes: [u8; 16]) -> JobId {
    JobId(Uuid::from_bytes(bytes))
}
