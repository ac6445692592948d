//! Leasing: expired and due tasks go back to their queues, then tenants take turns.

use embeddery_core::to_ms;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::{
    admin,
    task_row::{self, TaskRow, TaskState, stage_number},
    tenant_queue::Delta,
    transitions,
    writer::Db,
};
use crate::{Consumer, Lease, LeaseBatch, MESSAGE_VERSION, QueueOptions, Stage, StageMode};

/// A [`LeaseRequest`](crate::LeaseRequest) that the writer's thread can own, with the options of the queue.
pub(super) struct OwnedRequest {
    pub(super) stage: Stage,
    pub(super) consumer: Consumer,
    pub(super) max_tasks: usize,
    pub(super) duration_ms: i64,
    pub(super) idle: bool,
    pub(super) options: QueueOptions,
}

/// Maximum rows that one step requeues or parks.
const PAGE: i64 = 500;

/// After this time another worker may be told to become idle, if the first one sends no heartbeats.
const DRAIN_TIMEOUT_MS: i64 = 60_000;

/// Whether a lease could find a task.
pub(super) fn has_work(db: &Db<'_>, stage: Stage) -> rusqlite::Result<bool> {
    db.sql
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM lane WHERE stage = ?1 AND waiting > 0) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = ?4) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = ?5 AND due_ms <= ?2) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = ?6 AND due_ms <= ?2) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = ?7 AND due_ms <= ?3)",
        )?
        .query_row(
            params![
                stage_number(stage),
                db.now,
                MESSAGE_VERSION,
                TaskState::Exclusive as i64,
                TaskState::Delayed as i64,
                TaskState::Leased as i64,
                TaskState::Newer as i64
            ],
            |row| row.get(0),
        )
}

/// Notes that a worker is active now. When no worker was active for longer than `outage_threshold`, the queue or all
/// workers were down and no lease could be renewed. Leases are extended by that time.
pub(super) fn record_activity(db: &Db<'_>, outage_threshold: Duration) -> rusqlite::Result<()> {
    let last: i64 = db.sql.prepare_cached("SELECT heard_ms FROM single")?.query_row([], |row| row.get(0))?;
    db.sql.prepare_cached("UPDATE single SET heard_ms = ?")?.execute([db.now])?;
    let silence = db.now - last;
    if last > 0 && silence > to_ms(outage_threshold).cast_signed() {
        db.sql
            .prepare_cached("UPDATE task SET due_ms = due_ms + ? WHERE stage IN (0, 1, 2) AND place = ?")?
            .execute([silence, TaskState::Leased as i64])?;
    }
    Ok(())
}

pub(super) fn lease(db: &Db<'_>, request: &OwnedRequest) -> rusqlite::Result<LeaseBatch> {
    record_activity(db, request.options.outage_threshold)?;
    requeue_expired(db, request.stage)?;
    if admin::stage_mode(db, request.stage)? == StageMode::Pause {
        return Ok(LeaseBatch::default());
    }
    if let Some(batch) = exclusive(db, request)? {
        return Ok(batch);
    }
    let mut leases = Vec::new();
    let (mut token, mut reached_tag, mut parked) = (tokens(db, request.max_tasks)?, 0, 0);
    while leases.len() < request.max_tasks && parked < PAGE {
        let Some((mut row, tag)) = next(db, request)? else {
            remove_empty_queues(db, request.stage)?;
            break;
        };
        reached_tag = tag;
        if row.version > MESSAGE_VERSION {
            transitions::park_newer_version(db, &mut row)?;
            parked += 1;
            continue;
        }
        row.charge = cost(&row);
        leases.push(grant_lease(db, request, row, token)?);
        token += 1;
    }
    db.sql
        .prepare_cached("UPDATE stage SET tag = MAX(tag, ?) WHERE stage = ?")?
        .execute([reached_tag, stage_number(request.stage)])?;
    Ok(LeaseBatch { leases, drain_for_exclusive: false })
}

/// Reserves `count` tokens that were never used. Returns the first.
fn tokens(db: &Db<'_>, count: usize) -> rusqlite::Result<i64> {
    db.sql
        .prepare_cached("UPDATE single SET token = token + ?1 RETURNING token - ?1 + 1")?
        .query_row([i64::try_from(count).unwrap_or(i64::MAX / 4)], |row| row.get(0))
}

/// The cost of a turn: the task's bytes and a constant, times a weight that is smaller for a higher priority.
fn cost(row: &TaskRow) -> i64 {
    let weight = match row.task.priority {
        crate::Priority::High => 1,
        crate::Priority::Normal => 2,
        crate::Priority::Low => 4,
    };
    (i64::try_from(row.task.bytes).unwrap_or(i64::MAX / 8).min(1 << 40) + 4096) * weight
}

/// Requeues the tasks of expired leases, delayed tasks that are due, and tasks whose version this program knows by now.
/// An expired lease counts as a crash if its worker sends no heartbeats.
fn requeue_expired(db: &Db<'_>, stage: Stage) -> rusqlite::Result<()> {
    let due = |state: TaskState, until: i64| {
        let condition = "stage = ? AND place = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?";
        task_row::select(db, condition, [stage_number(stage), state as i64, until, PAGE])
    };
    for mut row in due(TaskState::Leased, db.now)? {
        if row.cancelled {
            transitions::remove(db, &row)?;
        } else if is_registered(db, row.consumer.as_deref())? {
            transitions::requeue(db, &mut row)?;
        } else {
            transitions::crashed(db, &mut row)?;
        }
    }
    for (state, until) in [(TaskState::Delayed, db.now), (TaskState::Newer, i64::from(MESSAGE_VERSION))] {
        for mut row in due(state, until)? {
            transitions::requeue(db, &mut row)?;
        }
    }
    Ok(())
}

/// Whether the worker's last heartbeat still holds.
fn is_registered(db: &Db<'_>, consumer: Option<&str>) -> rusqlite::Result<bool> {
    db.sql
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM worker WHERE consumer = ? AND until_ms > ?)")?
        .query_row(params![consumer, db.now], |row| row.get(0))
}

/// Leases a task that must run alone to a worker that is idle. A worker that is not idle is told to become idle and
/// gets no task. Only one worker at a time is told so, for as long as it sends heartbeats, because the work that it
/// has may take long. It is told again when it sends another request: it may not have received the response, or the
/// request comes from another loop of the same process. `None`: no task must run alone, or another worker is becoming
/// idle.
fn exclusive(db: &Db<'_>, request: &OwnedRequest) -> rusqlite::Result<Option<LeaseBatch>> {
    let stage = stage_number(request.stage);
    if request.idle {
        db.sql.prepare_cached("UPDATE stage SET clearing = NULL WHERE stage = ?")?.execute([stage])?;
    }
    let first = [stage, TaskState::Exclusive as i64];
    let Some(mut row) = task_row::first(db, "stage = ? AND place = ? ORDER BY seq", first)? else {
        return Ok(None);
    };
    if !request.idle {
        let chosen = db
            .sql
            .prepare_cached(
                "UPDATE stage SET clearing = ?4, clearing_until_ms = ?2 + ?3 WHERE stage = ?1 \
                 AND (clearing IS NULL OR clearing = ?4 OR clearing_until_ms <= ?2 AND NOT EXISTS \
                 (SELECT 1 FROM worker WHERE consumer = clearing AND until_ms > ?2))",
            )?
            .execute(params![stage, db.now, DRAIN_TIMEOUT_MS, request.consumer.0])?;
        return Ok((chosen > 0).then(|| LeaseBatch { leases: Vec::new(), drain_for_exclusive: true }));
    }
    if row.version > MESSAGE_VERSION {
        transitions::park_newer_version(db, &mut row)?;
        return Ok(Some(LeaseBatch::default()));
    }
    let token = tokens(db, 1)?;
    let lease = Lease { exclusive: true, ..grant_lease(db, request, row, token)? };
    Ok(Some(LeaseBatch { leases: vec![lease], drain_for_exclusive: false }))
}

/// The first task of the tenant with the lowest tag, and that tag.
fn next(db: &Db<'_>, request: &OwnedRequest) -> rusqlite::Result<Option<(TaskRow, i64)>> {
    let stage = stage_number(request.stage);
    let max_in_flight = request.options.in_flight_per_tenant.map_or(i64::MAX, i64::from);
    let turn: Option<(String, i64)> = db
        .sql
        .prepare_cached(
            "SELECT tenant, tag FROM lane WHERE stage = ? AND waiting > 0 AND leased < ? \
             ORDER BY tag, tenant LIMIT 1",
        )?
        .query_row([stage, max_in_flight], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((tenant, tag)) = turn else { return Ok(None) };
    let first = task_row::first(
        db,
        "stage = ? AND place = ? AND tenant = ? ORDER BY rank, seq",
        params![stage, TaskState::Waiting as i64, tenant],
    )?;
    Ok(first.map(|row| (row, tag)))
}

/// Removes the queues of tenants that have no tasks at the stage. The stage's tag moves up to the highest of theirs, so
/// that a tenant does not get another turn by coming back.
fn remove_empty_queues(db: &Db<'_>, stage: Stage) -> rusqlite::Result<()> {
    let stage = stage_number(stage);
    db.sql
        .prepare_cached(
            "UPDATE stage SET tag = MAX(tag, COALESCE((SELECT MAX(tag) FROM lane WHERE stage = ?1 AND items = 0), 0)) \
             WHERE stage = ?1",
        )?
        .execute([stage])?;
    db.sql.prepare_cached("DELETE FROM lane WHERE stage = ? AND items = 0")?.execute([stage])?;
    Ok(())
}

fn grant_lease(db: &Db<'_>, request: &OwnedRequest, mut row: TaskRow, token: i64) -> rusqlite::Result<Lease> {
    (row.consumer, row.token) = (Some(request.consumer.0.clone()), Some(token));
    let (due_ms, turn) = (db.now + request.duration_ms, Delta::charge(row.charge));
    transitions::put(db, &mut row, TaskState::Leased, Some(due_ms), turn)?;
    Ok(Lease {
        task: row.task,
        consumer: request.consumer.clone(),
        token: token.to_string(),
        exclusive: false,
    })
}
