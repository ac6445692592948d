//! Transitions of tasks between states. The row of the tenant's queue changes in the same step as the task's row.

use embeddery_core::to_ms;
use std::time::Duration;

use rusqlite::params;

use super::{
    super::{MAX_CRASHES, crash_message, panic_message, record},
    task_row::{TaskRow, TaskState, stage_number},
    tenant_queue::{self, Delta},
    writer::Db,
};
use crate::{MAX_SHARED_CRASHES, MESSAGE_VERSION, Reason, Stage, Task};

/// Adds a new task: to its tenant's queue, or held before a stage that drains.
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
            stage_number(task.stage),
            record::rank(task.priority),
            task.bytes as i64,
            task.attempts,
            task.deaths,
            task.enqueued_at_ms as i64,
            task.traceparent,
            // A held task counts in no state of its tenant's queue; `enter` counts it.
            TaskState::Held as i64,
            db.now,
        ])?;
    let mut row = TaskRow {
        seq: db.sql.last_insert_rowid(),
        version: MESSAGE_VERSION,
        task: task.clone(),
        state: TaskState::Held,
        consumer: None,
        token: None,
        cancelled: false,
        charge: 0,
    };
    let added = arrival(&row);
    if draining { tenant_queue::update(db, &row.task, added) } else { enter(db, &mut row, added) }
}

/// Puts a task back into its tenant's queue, or among the tasks that must run alone, at its old position. The charge
/// for its turn is refunded.
pub(super) fn requeue(db: &Db<'_>, row: &mut TaskRow) -> rusqlite::Result<()> {
    enter(db, row, Delta::default())
}

fn enter(db: &Db<'_>, row: &mut TaskRow, also: Delta) -> rusqlite::Result<()> {
    let exclusive = row.task.deaths >= MAX_SHARED_CRASHES;
    let state = if exclusive { TaskState::Exclusive } else { TaskState::Waiting };
    let refund = Delta::charge(-std::mem::take(&mut row.charge));
    put(db, row, state, None, also + refund)
}

/// The task's worker crashed.
pub(super) fn crashed(db: &Db<'_>, row: &mut TaskRow) -> rusqlite::Result<()> {
    match count_crash(row) {
        true => move_to_dead_letters(db, row, &worker_died(crash_message())),
        false => requeue(db, row),
    }
}

/// The task's work panicked. It is tried again after a delay.
pub(super) fn panicked(db: &Db<'_>, row: &mut TaskRow, after: Duration) -> rusqlite::Result<()> {
    match count_crash(row) {
        true => move_to_dead_letters(db, row, &worker_died(panic_message())),
        false => delay(db, row, after),
    }
}

/// Counts a crash. Returns whether it was the last one that is allowed.
fn count_crash(row: &mut TaskRow) -> bool {
    (row.task.deaths, row.charge) = (row.task.deaths + 1, 0);
    row.task.deaths >= MAX_CRASHES
}

fn worker_died(message: String) -> Reason {
    Reason { code: "worker_died".into(), message }
}

/// Delays a task.
pub(super) fn delay(db: &Db<'_>, row: &mut TaskRow, after: Duration) -> rusqlite::Result<()> {
    let due_ms = db.now.saturating_add(to_ms(after).cast_signed());
    put(db, row, TaskState::Delayed, Some(due_ms), Delta::default())
}

/// Leaves a task to workers that know its version.
pub(super) fn park_newer_version(db: &Db<'_>, row: &mut TaskRow) -> rusqlite::Result<()> {
    put(db, row, TaskState::Newer, Some(i64::from(row.version)), Delta::default())
}

/// Moves a task to another state. `also` is added to the row of the tenant's queue in the same step.
pub(super) fn put(
    db: &Db<'_>,
    row: &mut TaskRow,
    state: TaskState,
    due_ms: Option<i64>,
    also: Delta,
) -> rusqlite::Result<()> {
    let left = occupancy(row, -1);
    row.state = state;
    if state != TaskState::Leased {
        (row.consumer, row.token) = (None, None);
    }
    tenant_queue::update(db, &row.task, also + left + occupancy(row, 1))?;
    let task = &row.task;
    db.sql
        .prepare_cached(
            "UPDATE task SET stage = ?, rank = iif(version > ?, rank, ?), bytes = ?, attempts = ?, deaths = ?, \
             place = ?, since_ms = ?, due_ms = ?, consumer = ?, token = ?, paid = ? WHERE seq = ?",
        )?
        .execute(params![
            stage_number(task.stage),
            MESSAGE_VERSION,
            record::rank(task.priority),
            task.bytes as i64,
            task.attempts,
            task.deaths,
            state as i64,
            db.now,
            due_ms,
            row.consumer,
            row.token,
            row.charge,
            row.seq,
        ])?;
    Ok(())
}

/// Moves a task to another stage: into its tenant's queue there, or before a stage that drains.
pub(super) fn promote(
    db: &Db<'_>,
    row: &mut TaskRow,
    stage: Stage,
    bytes: u64,
    draining: bool,
) -> rusqlite::Result<()> {
    tenant_queue::update(db, &row.task, departure(row))?;
    (row.state, row.charge) = (TaskState::Held, 0);
    row.task = Task { stage, bytes, attempts: 0, deaths: 0, ..row.task.clone() };
    let added = arrival(row);
    if draining { put(db, row, TaskState::Held, None, added) } else { enter(db, row, added) }
}

/// Removes a task.
pub(super) fn remove(db: &Db<'_>, row: &TaskRow) -> rusqlite::Result<()> {
    tenant_queue::update(db, &row.task, departure(row))?;
    db.sql.prepare_cached("DELETE FROM task WHERE seq = ?")?.execute([row.seq])?;
    Ok(())
}

/// Makes a dead letter of a task.
pub(super) fn move_to_dead_letters(db: &Db<'_>, row: &TaskRow, reason: &Reason) -> rusqlite::Result<()> {
    remove(db, row)?;
    db.sql
        .prepare_cached(
            "INSERT OR REPLACE INTO dead (stage, job, item, task, code, message, at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            stage_number(row.task.stage),
            row.task.id.job.0.as_bytes(),
            row.task.id.item,
            record::write_task(&row.task),
            reason.code,
            reason.message,
            db.now,
        ])?;
    Ok(())
}

/// What a task counts for in its tenant's queue by its state, `times` times.
fn occupancy(row: &TaskRow, times: i64) -> Delta {
    match row.state {
        TaskState::Waiting => {
            Delta { waiting: times, waiting_bytes: times * row.task.bytes as i64, ..Delta::default() }
        }
        TaskState::Leased => Delta { leased: times, ..Delta::default() },
        _ => Delta::default(),
    }
}

/// What a task counts for in its tenant's queue in any state.
fn arrival(row: &TaskRow) -> Delta {
    Delta { items: 1, bytes: row.task.bytes as i64, ..Delta::default() }
}

/// The opposite of all that a task counts for.
fn departure(row: &TaskRow) -> Delta {
    occupancy(row, -1) + Delta { items: -1, bytes: -(row.task.bytes as i64), ..Delta::default() }
}
