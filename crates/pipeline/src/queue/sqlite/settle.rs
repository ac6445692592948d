//! What comes after a lease: the fence is looked at, then the task moves on, in one step.

use rusqlite::params;

use super::{
    admin,
    task_row::{self, Item, TaskState},
    writer::Db,
};
use crate::{Consumer, Lease, Outcome, SettleResult, Stage, StageMode};

/// The lease's task, if the lease still holds.
fn held(db: &Db<'_>, lease: &Lease) -> rusqlite::Result<Option<Item>> {
    let id = lease.task.id;
    let item = task_row::first(db, "job = ? AND item = ?", params![id.job.0.as_bytes(), id.item])?;
    let token = lease.token.parse().ok();
    Ok(item.filter(|item| {
        item.place == TaskState::Leased
            && token.is_some()
            && item.token == token
            && item.consumer.as_ref() == Some(&lease.consumer.0)
    }))
}

pub(super) fn renew(db: &Db<'_>, lease: &Lease, by_ms: i64) -> rusqlite::Result<bool> {
    let Some(item) = held(db, lease)?.filter(|item| !item.cancelled) else { return Ok(false) };
    db.sql
        .prepare_cached("UPDATE task SET due_ms = ? WHERE seq = ?")?
        .execute(params![db.now + by_ms, item.seq])?;
    Ok(true)
}

/// What was done, and the stage that has something new.
pub(super) fn settle(
    db: &Db<'_>,
    lease: &Lease,
    outcome: &Outcome,
) -> rusqlite::Result<(SettleResult, Option<Stage>)> {
    let Some(mut item) = held(db, lease)? else { return Ok((SettleResult::Lost, None)) };
    if item.cancelled {
        task_row::remove(db, &item)?;
        return Ok((SettleResult::Cancelled, None));
    }
    // A slot of the tenant is free at this stage, if nothing else.
    let mut rung = item.task.stage;
    match outcome {
        Outcome::Next { bytes } => match item.task.stage.next() {
            Some(next) => {
                let draining = admin::flow(db, next)? == StageMode::Drain;
                task_row::promote(db, &mut item, (next, *bytes), draining)?;
                rung = next;
            }
            None => task_row::remove(db, &item)?,
        },
        Outcome::Finished => task_row::remove(db, &item)?,
        Outcome::RetryAfter { after, charged } => {
            if *charged {
                (item.task.attempts, item.paid) = (item.task.attempts + 1, 0);
            }
            task_row::delay(db, &mut item, *after)?;
        }
        Outcome::Release => task_row::enter(db, &mut item)?,
        Outcome::Crashed { after } => task_row::crashed(db, &mut item, Some(*after))?,
        Outcome::DeadLetter(reason) => task_row::move_to_dead_letters(db, &item, reason)?,
    }
    Ok((SettleResult::Done, Some(rung)))
}

/// A worker stops in order: what it still has goes back, uncharged.
pub(super) fn retire(db: &Db<'_>, consumer: &Consumer) -> rusqlite::Result<()> {
    for stage in Stage::ALL {
        let of = "stage = ? AND place = 4 AND consumer = ?";
        for mut item in task_row::select(db, of, params![task_row::number(stage), consumer.0])? {
            if item.cancelled {
                task_row::remove(db, &item)?;
            } else {
                task_row::enter(db, &mut item)?;
            }
        }
    }
    db.sql.execute("DELETE FROM worker WHERE consumer = ?", [&consumer.0])?;
    Ok(())
}
