//! A task's row, and its moves between places. Whatever a lane counts is counted here, in the step that moves the row.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Row, named_params, params};
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
    count(db, &item.task, &[("items", 1), ("bytes", item.task.bytes as i64)])?;
    if draining { Ok(()) } else { enter(db, &mut item) }
}

/// Into its lane, or to those that must run alone; at its old place among them.
pub(super) fn enter(db: &Db<'_>, item: &mut Item) -> rusqlite::Result<()> {
    let alone = item.task.deaths >= DEATHS_IN_COMPANY;
    put(db, item, (if alone { Place::Alone } else { Place::Waiting }, None))
}

/// Into a place; out of the one where it was.
pub(super) fn put(
    db: &Db<'_>,
    item: &mut Item,
    (place, due_ms): (Place, Option<i64>),
) -> rusqlite::Result<()> {
    uncount(db, item)?;
    item.place = place;
    if place != Place::Leased {
        (item.consumer, item.token) = (None, None);
    }
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
    match place {
        Place::Waiting => {
            // Who comes back after a pause must not have saved up turns meanwhile.
            db.sql
                .prepare_cached(
                    "INSERT INTO lane (stage, tenant, tag, waiting, waiting_bytes) \
                     VALUES (:stage, :tenant, (SELECT tag FROM stage WHERE stage = :stage), 1, :bytes) \
                     ON CONFLICT DO UPDATE SET waiting = waiting + 1, waiting_bytes = waiting_bytes + :bytes, \
                     tag = CASE WHEN waiting > 0 THEN tag ELSE MAX(tag, excluded.tag) END",
                )?
                .execute(named_params! {
                    ":stage": number(task.stage), ":tenant": task.tenant, ":bytes": task.bytes as i64,
                })?;
            Ok(())
        }
        Place::Leased => count(db, task, &[("leased", 1)]),
        _ => Ok(()),
    }
}

/// To another stage: its lane there counts it from now on.
pub(super) fn promote(db: &Db<'_>, item: &mut Item, stage: Stage, bytes: u64) -> rusqlite::Result<()> {
    uncount(db, item)?;
    count(db, &item.task, &[("items", -1), ("bytes", -(item.task.bytes as i64))])?;
    item.place = Place::Held;
    item.task = Task { stage, bytes, attempts: 0, deaths: 0, ..item.task.clone() };
    count(db, &item.task, &[("items", 1), ("bytes", bytes as i64)])
}

/// Out of the queue.
pub(super) fn remove(db: &Db<'_>, item: &Item) -> rusqlite::Result<()> {
    uncount(db, item)?;
    count(db, &item.task, &[("items", -1), ("bytes", -(item.task.bytes as i64))])?;
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

fn uncount(db: &Db<'_>, item: &Item) -> rusqlite::Result<()> {
    match item.place {
        Place::Waiting => {
            count(db, &item.task, &[("waiting", -1), ("waiting_bytes", -(item.task.bytes as i64))])
        }
        Place::Leased => count(db, &item.task, &[("leased", -1)]),
        _ => Ok(()),
    }
}

/// Adds to a task's lane; each column is one of the table's.
fn count(db: &Db<'_>, task: &Task, changes: &[(&str, i64)]) -> rusqlite::Result<()> {
    let names: Vec<&str> = changes.iter().map(|(column, _)| *column).collect();
    let values: Vec<String> = (3..3 + names.len()).map(|place| format!("?{place}")).collect();
    let added: Vec<String> = names.iter().map(|name| format!("{name} = {name} + excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO lane (stage, tenant, {}) VALUES (?1, ?2, {}) ON CONFLICT DO UPDATE SET {}",
        names.join(", "),
        values.join(", "),
        added.join(", ")
    );
    let mut statement = db.sql.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, number(task.stage))?;
    statement.raw_bind_parameter(2, &*task.tenant)?;
    for (place, (_, change)) in changes.iter().enumerate() {
        statement.raw_bind_parameter(place + 3, change)?;
    }
    statement.raw_execute()?;
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
