//! Lanes: how much of a tenant is where in a stage, and when its turn is.

use rusqlite::params;

use super::{super::MAX_FAIRNESS_CREDIT, task_row::number, writer::Db};
use crate::Task;

/// What is added to a lane's row.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) tag: i64,
    pub(super) waiting: i64,
    pub(super) waiting_bytes: i64,
    pub(super) leased: i64,
    pub(super) items: i64,
    pub(super) bytes: i64,
}

impl Change {
    /// A turn is over: the next one comes after so much work of others. Less than nothing: it is given back.
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

/// Adds to the lane of a task. Who comes back after a pause must not have saved up turns meanwhile: a lane in which
/// nothing waited begins at the stage's tag, and turns that are given back do not put it far ahead of others.
pub(super) fn change(db: &Db<'_>, task: &Task, change: Change) -> rusqlite::Result<()> {
    const TAG: &str = "CASE WHEN waiting = 0 AND ?3 > 0 THEN MAX(tag, excluded.tag) ELSE tag END";
    db.sql
        .prepare_cached(&format!(
            "INSERT INTO lane (stage, tenant, tag, waiting, waiting_bytes, leased, items, bytes) \
             VALUES (?1, ?2, (SELECT tag FROM stage WHERE stage = ?1), ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT DO UPDATE SET \
             tag = MAX({TAG} + ?8, MIN({TAG}, excluded.tag - {MAX_FAIRNESS_CREDIT})), \
             waiting = waiting + ?3, waiting_bytes = waiting_bytes + ?4, leased = leased + ?5, items = items + ?6, \
             bytes = bytes + ?7",
        ))?
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
