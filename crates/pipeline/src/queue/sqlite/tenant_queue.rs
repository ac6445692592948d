//! A tenant's queue at a stage: a row of the table `lane` that counts the tenant's tasks there, and whose tag says when
//! the tenant's turn is.

use rusqlite::params;

use super::{super::MAX_FAIRNESS_CREDIT, task_row::stage_number, writer::Db};
use crate::Task;

/// What is added to the row.
#[derive(Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) tag: i64,
    pub(super) waiting: i64,
    pub(super) waiting_bytes: i64,
    pub(super) leased: i64,
    pub(super) items: i64,
    pub(super) bytes: i64,
}

impl Delta {
    /// Charges a turn: the tenant's next turn comes after this much work of others. A negative cost is a refund.
    pub(super) fn charge(cost: i64) -> Self {
        Self { tag: cost, ..Self::default() }
    }
}

impl std::ops::Add for Delta {
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

/// Adds `delta` to the queue of the task's tenant at the task's stage.
///
/// A tenant does not save up turns while it has no work: a queue in which nothing waited starts at the stage's tag.
/// Refunds put a tenant ahead of others by [`MAX_FAIRNESS_CREDIT`] at most.
pub(super) fn update(db: &Db<'_>, task: &Task, delta: Delta) -> rusqlite::Result<()> {
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
            stage_number(task.stage),
            task.tenant,
            delta.waiting,
            delta.waiting_bytes,
            delta.leased,
            delta.items,
            delta.bytes,
            delta.tag,
        ])?;
    Ok(())
}
