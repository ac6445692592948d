//! A task's row, and its moves between places. Whatever a lane counts is counted here, in the step that moves the row.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{super::record, writer::Db};
use crate::{DEATHS_IN_COMPANY, JobId, MESSAGE_VERSION, Priority, Reason, Stage, Task, TaskId};

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its tenant's lane.
    Waiting,
    /// Waits for a process that runs nothing else.
    Alone,
    /// Before a stage that drains.
    Held,
    Delayed,
    Leased,
}

pub(super) struct Item {
    pub(super) seq: i64,
    pub(super) version: u32,
    pub(super) task: Task,
    pub(super) place: Place,
    pub(super) consumer: Option<String>,
    pub(super) token: Option<i64>,
    pub(super) cancelled: bool,
}

const COLUMNS: &str = "seq, version, job, item, tenant, stage, rank, bytes, attempts, deaths, enqueued_at_ms, \
                       traceparent, place, consumer, token, cancelled";

/// Items by a condition.
pub(super) fn select(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Item>> {
    let mut statement = db.sql.prepare_cached(&format!("SELECT {COLUMNS} FROM task WHERE {condition}"))?;
    statement.query_map(values, read)?.collect()
}

/// One item by a condition.
pub(super) fn first(
    db: &Db<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Option<Item>> {
    let mut statement =
        db.sql.prepare_cached(&format!("SELECT {COLUMNS} FROM task WHERE {condition} LIMIT 1"))?;
    statement.query_row(values, read).optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Item> {
    let id = TaskId { job: job(row.get(2)?), item: row.get(3)? };
    let task = Task {
        id,
        tenant: Arc::from(row.get_ref(4)?.as_str()?),
        stage: stage(row.get(5)?),
        priority: record::priority(row.get(6)?).unwrap_or(Priority::Normal),
        bytes: row.get(7)?,
        attempts: row.get(8)?,
        deaths: row.get(9)?,
        enqueued_at_ms: row.get(10)?,
        traceparent: row.get_ref(11)?.as_str_or_null()?.map(Arc::from),
    };
    let place = match row.get::<_, i64>(12)? {
        0 => Place::Waiting,
        1 => Place::Alone,
        2 => Place::Held,
        3 => Place::Delayed,
        _ => Place::Leased,
    };
    Ok(Item {
        seq: row.get(0)?,
        version: row.get(1)?,
        task,
        place,
        consumer: row.get(13)?,
        token: row.get(14)?,
        cancelled: row.get(15)?,
    })
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
            Place::Held as i64,
            db.now,
        ])?;
    let mut item = Item {
        seq: db.sql.last_insert_rowid(),
        version: MESSAGE_VERSION,
        task: task.clone(),
        place: Place::Held,
        consumer: None,
        token: None,
        cancelled: false,
    };
    let new = Change { items: 1, bytes: item.task.bytes as i64, ..Change::default() };
    if draining { change(db, &item.task, new) } else { enter_with(db, &mut item, new) }
}

/// Into its lane, or to those that must run alone; at its old place among them.
pub(super) fn enter(db: &Db<'_>, item: &mut Item) -> rusqlite::Result<()> {
    enter_with(db, item, Change::default())
}

fn enter_with(db: &Db<'_>, item: &mut Item, also: Change) -> rusqlite::Result<()> {
    let alone = item.task.deaths >= DEATHS_IN_COMPANY;
    put(db, item, (if alone { Place::Alone } else { Place::Waiting }, None), also)
}

/// Into a place, out of the one where it was; `also` is counted with it.
pub(super) fn put(
    db: &Db<'_>,
    item: &mut Item,
    (place, due_ms): (Place, Option<i64>),
    also: Change,
) -> rusqlite::Result<()> {
    let counted = also + presence(item, -1);
    item.place = place;
    if place != Place::Leased {
        (item.consumer, item.token) = (None, None);
    }
    change(db, &item.task, counted + presence(item, 1))?;
    let task = &item.task;
    db.sql
        .prepare_cached(
            "UPDATE task SET stage = ?, rank = ?, bytes = ?, attempts = ?, deaths = ?, place = ?, since_ms = ?, \
             due_ms = ?, consumer = ?, token = ? WHERE seq = ?",
        )?
        .execute(params![
            number(task.stage),
            record::rank(task.priority),
            task.bytes as i64,
            task.attempts,
            task.deaths,
            place as i64,
            db.now,
            due_ms,
            item.consumer,
            item.token,
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
    change(db, &item.task, gone(item))?;
    item.place = Place::Held;
    item.task = Task { stage, bytes, attempts: 0, deaths: 0, ..item.task.clone() };
    let new = Change { items: 1, bytes: bytes as i64, ..Change::default() };
    if draining { put(db, item, (Place::Held, None), new) } else { enter_with(db, item, new) }
}

/// Out of the queue.
pub(super) fn remove(db: &Db<'_>, item: &Item) -> rusqlite::Result<()> {
    change(db, &item.task, gone(item))?;
    db.sql.prepare_cached("DELETE FROM task WHERE seq = ?")?.execute([item.seq])?;
    Ok(())
}

/// Out of the queue, to the dead letters.
pub(super) fn bury(db: &Db<'_>, item: &Item, reason: &Reason) -> rusqlite::Result<()> {
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

/// What is added to a lane's row.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    tag: i64,
    waiting: i64,
    waiting_bytes: i64,
    leased: i64,
    items: i64,
    bytes: i64,
}

impl Change {
    /// A turn is over: the next one comes after so much work of others.
    pub(super) fn turn(cost: i64) -> Self {
        Self { tag: cost, ..Self::default() }
    }
}

impl std::ops::Add for Change {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tag: self.tag + other.tag,
            waiting: self.waiting + other.waiting,
            waiting_bytes: self.waiting_bytes + other.waiting_bytes,
            leased: self.leased + other.leased,
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What an item's place counts for, once more or once less.
fn presence(item: &Item, times: i64) -> Change {
    match item.place {
        Place::Waiting => {
            Change { waiting: times, waiting_bytes: times * item.task.bytes as i64, ..Change::default() }
        }
        Place::Leased => Change { leased: times, ..Change::default() },
        _ => Change::default(),
    }
}

/// All that an item counts for, less.
fn gone(item: &Item) -> Change {
    presence(item, -1) + Change { items: -1, bytes: -(item.task.bytes as i64), ..Change::default() }
}

/// Adds to the lane of a task. Who comes back after a pause must not have saved up turns meanwhile: a lane in which
/// nothing waited begins at the stage's tag.
fn change(db: &Db<'_>, task: &Task, change: Change) -> rusqlite::Result<()> {
    db.sql
        .prepare_cached(
            "INSERT INTO lane (stage, tenant, tag, waiting, waiting_bytes, leased, items, bytes) \
             VALUES (?1, ?2, (SELECT tag FROM stage WHERE stage = ?1), ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT DO UPDATE SET \
             tag = CASE WHEN waiting = 0 AND ?3 > 0 THEN MAX(tag, excluded.tag) ELSE tag + ?8 END, \
             waiting = waiting + ?3, waiting_bytes = waiting_bytes + ?4, leased = leased + ?5, items = items + ?6, \
             bytes = bytes + ?7",
        )?
        .execute(params![
            number(task.stage),
            task.tenant,
            change.waiting,
            change.waiting_bytes,
            change.leased,
            change.items,
            change.bytes,
            change.tag,
        ])?;
    Ok(())
}

pub(super) const fn number(stage: Stage) -> i64 {
    match stage {
        Stage::Chunking => 0,
        Stage::Embedding => 1,
        Stage::Storage => 2,
    }
}

pub(super) const fn stage(number: i64) -> Stage {
    match number {
        0 => Stage::Chunking,
        1 => Stage::Embedding,
        _ => Stage::Storage,
    }
}

pub(super) const fn job(bytes: [u8; 16]) -> JobId {
    JobId(Uuid::from_bytes(bytes))
}
