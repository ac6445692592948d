//! Leasing: what has run out and what is due goes back to its place, then tenants take turns.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::{
    task_row::{self, Item, TaskState, number},
    tenant_queue::Change,
    writer::Db,
};
use crate::{Consumer, Lease, LeaseBatch, MESSAGE_VERSION, QueueOptions, Stage, StageMode};

/// What a worker asks for, owned.
pub(super) struct Asked {
    pub(super) stage: Stage,
    pub(super) consumer: Consumer,
    pub(super) most: usize,
    pub(super) length_ms: i64,
    pub(super) idle: bool,
    pub(super) options: QueueOptions,
}

/// Most rows that one step brings back.
const PAGE: i64 = 500;

/// After so long another worker is asked to become idle, if the first is not heard of.
const CLEARING_MS: i64 = 60_000;

/// Whether a lease could find something.
pub(super) fn has_work(db: &Db<'_>, stage: Stage) -> rusqlite::Result<bool> {
    let (stage, now) = (number(stage), db.now);
    db.sql
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM lane WHERE stage = ?1 AND waiting > 0) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 1) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 3 AND due_ms <= ?2) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 4 AND due_ms <= ?2) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 5 AND due_ms <= ?3)",
        )?
        .query_row(params![stage, now, MESSAGE_VERSION], |row| row.get(0))
}

/// Somebody works here now. When nobody was heard for so long, the queue was away, or all were: nobody could renew a
/// lease, so that time is not counted.
pub(super) fn record_activity(db: &Db<'_>, silence: Duration) -> rusqlite::Result<()> {
    let last: i64 = db.sql.prepare_cached("SELECT heard_ms FROM single")?.query_row([], |row| row.get(0))?;
    db.sql.prepare_cached("UPDATE single SET heard_ms = ?")?.execute([db.now])?;
    let away = db.now - last;
    if last > 0 && away > super::millis(silence) {
        db.sql
            .prepare_cached("UPDATE task SET due_ms = due_ms + ? WHERE stage IN (0, 1, 2) AND place = 4")?
            .execute([away])?;
    }
    Ok(())
}

pub(super) fn lease(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<LeaseBatch> {
    record_activity(db, asked.options.outage_threshold)?;
    requeue_expired(db, asked.stage)?;
    if super::admin::flow(db, asked.stage)? == StageMode::Pause {
        return Ok(LeaseBatch::default());
    }
    if let Some(answer) = alone(db, asked)? {
        return Ok(answer);
    }
    let mut leases = Vec::new();
    let (mut token, mut reached, mut aside) = (tokens(db, asked.most)?, 0, 0);
    while leases.len() < asked.most && aside < PAGE {
        let Some((mut item, tag)) = next(db, asked)? else {
            forget_lanes(db, asked.stage)?;
            break;
        };
        reached = tag;
        if item.version > MESSAGE_VERSION {
            park_newer_version(db, &mut item)?;
            aside += 1;
            continue;
        }
        item.paid = cost(&item);
        leases.push(grant_lease(db, asked, (item, token))?);
        token += 1;
    }
    db.sql
        .prepare_cached("UPDATE stage SET tag = MAX(tag, ?) WHERE stage = ?")?
        .execute([reached, number(asked.stage)])?;
    Ok(LeaseBatch { leases, drain_for_exclusive: false })
}

/// Left to workers who know its version.
fn park_newer_version(db: &Db<'_>, item: &mut Item) -> rusqlite::Result<()> {
    task_row::put(db, item, (TaskState::Newer, Some(i64::from(item.version))), Change::default())
}

/// Fences that were never used: the first of so many.
fn tokens(db: &Db<'_>, count: usize) -> rusqlite::Result<i64> {
    db.sql
        .prepare_cached("UPDATE single SET token = token + ?1 RETURNING token - ?1 + 1")?
        .query_row([i64::try_from(count).unwrap_or(i64::MAX / 4)], |row| row.get(0))
}

/// Work of a task in the measure of turns: its bytes and something for being one, less of it for who goes first.
fn cost(item: &Item) -> i64 {
    let share = match item.task.priority {
        crate::Priority::High => 1,
        crate::Priority::Normal => 2,
        crate::Priority::Low => 4,
    };
    (i64::try_from(item.task.bytes).unwrap_or(i64::MAX / 8).min(1 << 40) + 4096) * share
}

/// Tasks of expired leases, a death each of those whose workers are silent; delayed ones that are due; and those whose
/// version is known by now.
fn requeue_expired(db: &Db<'_>, stage: Stage) -> rusqlite::Result<()> {
    let due = |place: TaskState, till: i64| {
        let due = "stage = ? AND place = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?";
        task_row::select(db, due, [number(stage), place as i64, till, PAGE])
    };
    for mut item in due(TaskState::Leased, db.now)? {
        if item.cancelled {
            task_row::remove(db, &item)?;
        } else if alive(db, item.consumer.as_deref())? {
            task_row::enter(db, &mut item)?;
        } else {
            task_row::crashed(db, &mut item, None)?;
        }
    }
    for (place, till) in [(TaskState::Delayed, db.now), (TaskState::Newer, i64::from(MESSAGE_VERSION))] {
        for mut item in due(place, till)? {
            task_row::enter(db, &mut item)?;
        }
    }
    Ok(())
}

/// Whether it was heard of within a lease: then it did not renew because it knows of no such lease.
fn alive(db: &Db<'_>, consumer: Option<&str>) -> rusqlite::Result<bool> {
    db.sql
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM worker WHERE consumer = ? AND until_ms > ?)")?
        .query_row(params![consumer, db.now], |row| row.get(0))
}

/// What must run alone goes first: to a worker that is idle, and another one is asked to become so, by getting
/// nothing. One at a time is asked, for as long as it lives: what it has at hand may take long. When it asks again it
/// has not heard, or it is another loop of the same process. `None`: go on.
fn alone(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<Option<LeaseBatch>> {
    let stage = number(asked.stage);
    if asked.idle {
        db.sql.prepare_cached("UPDATE stage SET clearing = NULL WHERE stage = ?")?.execute([stage])?;
    }
    let Some(mut item) = task_row::first(db, "stage = ? AND place = 1 ORDER BY seq", [stage])? else {
        return Ok(None);
    };
    if !asked.idle {
        let clear = db
            .sql
            .prepare_cached(
                "UPDATE stage SET clearing = ?4, clearing_until_ms = ?2 + ?3 WHERE stage = ?1 \
                 AND (clearing IS NULL OR clearing = ?4 OR clearing_until_ms <= ?2 AND NOT EXISTS \
                 (SELECT 1 FROM worker WHERE consumer = clearing AND until_ms > ?2))",
            )?
            .execute(params![stage, db.now, CLEARING_MS, asked.consumer.0])?;
        return Ok((clear > 0).then(|| LeaseBatch { leases: Vec::new(), drain_for_exclusive: true }));
    }
    if item.version > MESSAGE_VERSION {
        park_newer_version(db, &mut item)?;
        return Ok(Some(LeaseBatch::default()));
    }
    let token = tokens(db, 1)?;
    let lease = Lease { exclusive: true, ..grant_lease(db, asked, (item, token))? };
    Ok(Some(LeaseBatch { leases: vec![lease], drain_for_exclusive: false }))
}

/// The first of the tenant whose turn it is, and the tenant's tag.
fn next(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<Option<(Item, i64)>> {
    let stage = number(asked.stage);
    let turn: Option<(String, i64)> = db
        .sql
        .prepare_cached(
            "SELECT tenant, tag FROM lane WHERE stage = ? AND waiting > 0 AND leased < ? ORDER BY tag, tenant LIMIT 1",
        )?
        .query_row(params![stage, asked.options.in_flight_per_tenant.map_or(i64::MAX, i64::from)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((tenant, tag)) = turn else { return Ok(None) };
    let first = task_row::first(
        db,
        "stage = ? AND place = 0 AND tenant = ? ORDER BY rank, seq",
        params![stage, tenant],
    )?;
    Ok(first.map(|item| (item, tag)))
}

/// Nobody's turn: lanes of tenants that have nothing here are not needed any more.
fn forget_lanes(db: &Db<'_>, stage: Stage) -> rusqlite::Result<()> {
    let stage = number(stage);
    db.sql
        .prepare_cached(
            "UPDATE stage SET tag = MAX(tag, COALESCE((SELECT MAX(tag) FROM lane WHERE stage = ?1 AND items = 0), 0)) \
             WHERE stage = ?1",
        )?
        .execute([stage])?;
    db.sql.prepare_cached("DELETE FROM lane WHERE stage = ? AND items = 0")?.execute([stage])?;
    Ok(())
}

fn grant_lease(db: &Db<'_>, asked: &Asked, (mut item, token): (Item, i64)) -> rusqlite::Result<Lease> {
    (item.consumer, item.token) = (Some(asked.consumer.0.clone()), Some(token));
    let turn = Change::turn(item.paid);
    task_row::put(db, &mut item, (TaskState::Leased, Some(db.now + asked.length_ms)), turn)?;
    Ok(Lease {
        task: item.task,
        consumer: asked.consumer.clone(),
        token: token.to_string(),
        exclusive: false,
    })
}
