//! Ends and renews leases: checks the fence, then moves the task, in one step.

use rusqlite::params;

use super::{
    admin,
    task_row::{self, TaskRow, TaskState},
    transitions,
    writer::Db,
};
use crate::{Lease, Outcome, SettleResult, Stage, StageMode};

/// The row of a lease's task, if the lease still holds.
fn held(db: &Db<'_>, lease: &Lease) -> rusqlite::Result<Option<TaskRow>> {
    let id = lease.task.id;
    let row = task_row::first(db, "job = ? AND item = ?", params![id.job.0.as_bytes(), id.item])?;
    let token = lease.token.parse().ok();
    Ok(row.filter(|row| {
        row.state == TaskState::Leased
            && token.is_some()
            && row.token == token
            && row.consumer.as_ref() == Some(&lease.consumer.0)
    }))
}

pub(super) fn renew(db: &Db<'_>, lease: &Lease, duration_ms: i64) -> rusqlite::Result<bool> {
    let Some(row) = held(db, lease)?.filter(|row| !row.cancelled) else { return Ok(false) };
    db.sql
        .prepare_cached("UPDATE task SET due_ms = ? WHERE seq = ?")?
        .execute(params![db.now + duration_ms, row.seq])?;
    Ok(true)
}

/// Ends a lease. Returns the result, and the stage at which there may be work now.
pub(super) fn settle(
    db: &Db<'_>,
    lease: &Lease,
    outcome: &Outcome,
) -> rusqlite::Result<(SettleResult, Option<Stage>)> {
    let Some(mut row) = held(db, lease)? else { return Ok((SettleResult::Lost, None)) };
    if row.cancelled {
        transitions::remove(db, &row)?;
        return Ok((SettleResult::Cancelled, None));
    }
    // At the least, the tenant may have another task in flight at this stage.
    let mut changed = row.task.stage;
    match outcome {
        Outcome::Next { bytes } => match row.task.stage.next() {
            Some(next) => {
                let draining = admin::stage_mode(db, next)? == StageMode::Drain;
                transitions::promote(db, &mut row, next, *bytes, draining)?;
                changed = next;
            }
            None => transitions::remove(db, &row)?,
        },
        Outcome::Finished => transitions::remove(db, &row)?,
        Outcome::RetryAfter { after, charged } => {
            if *charged {
                (row.task.attempts, row.charge) = (row.task.attempts + 1, 0);
            }
            transitions::delay(db, &mut row, *after)?;
        }
        Outcome::Release => transitions::requeue(db, &mut row)?,
        Outcome::Crashed { after } => transitions::panicked(db, &mut row, *after)?,
        Outcome::DeadLetter(reason) => transitions::move_to_dead_letters(db, &row, reason)?,
    }
    Ok((SettleResult::Done, Some(changed)))
}
