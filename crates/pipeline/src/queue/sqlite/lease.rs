//! Leasing: what has run out and what is due goes back to its place, then tenants take turns.

use rusqlite::{OptionalExtension as _, params};

use super::{
    row::{self, Change, Item, Place, number},
    writer::Db,
};
use crate::{Consumer, DEATHS_ALONE, DEATHS_IN_COMPANY, Flow, Lease, MESSAGE_VERSION, Reason, Stage};

/// What a worker asks for, owned.
pub(super) struct Asked {
    pub(super) stage: Stage,
    pub(super) consumer: Consumer,
    pub(super) most: usize,
    pub(super) length_ms: i64,
    pub(super) idle: bool,
    pub(super) cap: Option<u32>,
}

/// Most rows that one step brings back.
const PAGE: i64 = 500;

/// How long somebody who is to become idle gets nothing more.
const CLEARING_MS: i64 = 60_000;

/// How long a message of a newer version is put off, for a worker that can read it.
const PUT_OFF_MS: i64 = 2_000;

/// Whether a lease could find something.
pub(super) fn anything(db: &Db<'_>, stage: Stage) -> rusqlite::Result<bool> {
    let (stage, now) = (number(stage), db.now);
    db.sql
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM lane WHERE stage = ?1 AND waiting > 0) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 1) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 3 AND due_ms <= ?2) \
             OR EXISTS (SELECT 1 FROM task WHERE stage = ?1 AND place = 4 AND due_ms <= ?2)",
        )?
        .query_row(params![stage, now], |row| row.get(0))
}

pub(super) fn lease(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<Vec<Lease>> {
    bring_back(db, asked.stage)?;
    if super::state::flow(db, asked.stage)? == Flow::Pause {
        return Ok(Vec::new());
    }
    if let Some(answer) = alone(db, asked)? {
        return Ok(answer);
    }
    let mut leases = Vec::new();
    let (mut token, mut reached) = (tokens(db, asked.most)?, 0);
    while leases.len() < asked.most {
        let Some((mut item, tag)) = next(db, asked)? else {
            forget_lanes(db, asked.stage)?;
            break;
        };
        reached = tag;
        if item.version > MESSAGE_VERSION {
            let later = (Place::Delayed, Some(db.now + PUT_OFF_MS));
            row::put(db, &mut item, later, Change::default())?;
            continue;
        }
        let cost = Change::turn(cost(&item));
        leases.push(give(db, asked, (item, token), cost)?);
        token += 1;
    }
    db.sql
        .prepare_cached("UPDATE stage SET tag = MAX(tag, ?) WHERE stage = ?")?
        .execute([reached, number(asked.stage)])?;
    Ok(leases)
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

/// Tasks of expired leases, a death each, and delayed ones that are due.
fn bring_back(db: &Db<'_>, stage: Stage) -> rusqlite::Result<()> {
    let due = "stage = ? AND place = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?";
    let of = |place: Place| params_of(stage, place, db.now);
    for mut item in row::select(db, due, of(Place::Leased))? {
        if item.cancelled {
            row::remove(db, &item)?;
            continue;
        }
        item.task.deaths += 1;
        if item.task.deaths >= DEATHS_IN_COMPANY + DEATHS_ALONE {
            let reason = Reason { code: "worker_died".into(), message: super::super::died() };
            row::bury(db, &item, &reason)?;
        } else {
            row::enter(db, &mut item)?;
        }
    }
    for mut item in row::select(db, due, of(Place::Delayed))? {
        row::enter(db, &mut item)?;
    }
    Ok(())
}

fn params_of(stage: Stage, place: Place, now: i64) -> [i64; 4] {
    [number(stage), place as i64, now, PAGE]
}

/// A task that must run alone, when there is one and the worker is idle; else perhaps the worker is asked to become
/// idle, by getting nothing. `None`: go on.
fn alone(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<Option<Vec<Lease>>> {
    let alone = "stage = ? AND place = 1 ORDER BY seq";
    if let Some(item) = row::first(db, alone, [number(asked.stage)])? {
        if asked.idle && asked.most > 0 {
            clear(db)?;
            let token = tokens(db, 1)?;
            let mut lease = give(db, asked, (item, token), Change::default())?;
            lease.alone = true;
            return Ok(Some(vec![lease]));
        }
        db.sql
            .prepare_cached(
                "UPDATE single SET clearing = ?1, clearing_until_ms = ?2 + ?3 \
                 WHERE clearing IS NULL OR clearing_until_ms <= ?2",
            )?
            .execute(params![asked.consumer.0, db.now, CLEARING_MS])?;
    }
    let mine: bool = db
        .sql
        .prepare_cached("SELECT clearing IS ? AND clearing_until_ms > ? FROM single")?
        .query_row(params![asked.consumer.0, db.now], |row| row.get(0))?;
    if !mine {
        return Ok(None);
    }
    let wanted: bool = db
        .sql
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM task WHERE stage IN (0, 1, 2) AND place = 1)")?
        .query_row([], |row| row.get(0))?;
    if wanted {
        return Ok(Some(Vec::new()));
    }
    clear(db)?;
    Ok(None)
}

fn clear(db: &Db<'_>) -> rusqlite::Result<()> {
    db.sql.prepare_cached("UPDATE single SET clearing = NULL WHERE clearing IS NOT NULL")?.execute([])?;
    Ok(())
}

/// The first of the tenant whose turn it is, and the tenant's tag.
fn next(db: &Db<'_>, asked: &Asked) -> rusqlite::Result<Option<(Item, i64)>> {
    let stage = number(asked.stage);
    let turn: Option<(String, i64)> = db
        .sql
        .prepare_cached(
            "SELECT tenant, tag FROM lane WHERE stage = ? AND waiting > 0 AND leased < ? ORDER BY tag, tenant LIMIT 1",
        )?
        .query_row(params![stage, asked.cap.map_or(i64::MAX, i64::from)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((tenant, tag)) = turn else { return Ok(None) };
    let first =
        row::first(db, "stage = ? AND place = 0 AND tenant = ? ORDER BY rank, seq", params![stage, tenant])?;
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

fn give(db: &Db<'_>, asked: &Asked, (mut item, token): (Item, i64), cost: Change) -> rusqlite::Result<Lease> {
    (item.consumer, item.token) = (Some(asked.consumer.0.clone()), Some(token));
    row::put(db, &mut item, (Place::Leased, Some(db.now + asked.length_ms)), cost)?;
    Ok(Lease { task: item.task, consumer: asked.consumer.clone(), token: token.to_string(), alone: false })
}
