//! Watches and controls the queue: depth, stage modes, workers, and what is done to a whole job.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    super::record,
    SqliteQueue, age,
    task_row::{self, TaskState, stage_number},
    transitions,
    writer::Db,
};
use crate::{Depth, JobId, Op, Priority, QueueAdmin, Stage, StageMode, WorkerStatus};

/// Maximum tasks of a job in one transaction. It bounds how long other callers wait for the file.
const PAGE: i64 = 1000;

impl QueueAdmin for SqliteQueue {
    fn cancel(&self, job: JobId) -> Op<'_, u64> {
        Box::pin(async move {
            let mut removed = 0;
            loop {
                let page = self.writer.write(move |db| cancel(db, job)).await?;
                removed += page;
                if page < PAGE as u64 {
                    return Ok(removed);
                }
            }
        })
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> Op<'_, u64> {
        Box::pin(async move {
            let (mut moved, mut after) = (0, -1);
            loop {
                let page = move |db: &Db<'_>| reprioritize(db, job, priority, after);
                let (count, last) = self.writer.write(page).await?;
                moved += count;
                match last {
                    Some(last) => after = last,
                    None => return Ok(moved),
                }
            }
        })
    }

    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| depth(db, stage).map(|depth| (stage, depth))).collect()
        }))
    }

    fn stage_modes(&self) -> Op<'_, BTreeMap<Stage, StageMode>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| stage_mode(db, stage).map(|mode| (stage, mode))).collect()
        }))
    }

    fn set_stage_mode(&self, stage: Stage, mode: StageMode) -> Op<'_, ()> {
        Box::pin(async move {
            self.writer.write(move |db| set_stage_mode(db, stage, mode)).await?;
            self.notify_all();
            Ok(())
        })
    }

    fn workers(&self) -> Op<'_, Vec<WorkerStatus>> {
        Box::pin(self.writer.read(|db| {
            let mut statement =
                db.sql.prepare_cached("SELECT report FROM worker WHERE until_ms > ? ORDER BY consumer")?;
            let reports = statement.query_map([db.now], |row| row.get::<_, String>(0))?;
            reports.filter_map(|report| report.map(|text| record::read_report(&text)).transpose()).collect()
        }))
    }

    fn health(&self) -> Op<'_, Vec<String>> {
        Box::pin(async move {
            self.writer.read(|db| stage_mode(db, Stage::Chunking)).await?;
            Ok(Vec::new())
        })
    }
}

/// Removes a page of a job's tasks and marks its leased tasks as cancelled. Returns how many tasks were removed; fewer
/// than a page means that none is left.
fn cancel(db: &Db<'_>, job: JobId) -> rusqlite::Result<u64> {
    let (bytes, leased) = (job.0.as_bytes(), TaskState::Leased as i64);
    db.sql
        .prepare_cached("UPDATE task SET cancelled = 1 WHERE job = ? AND place = ? AND NOT cancelled")?
        .execute(params![bytes, leased])?;
    let page = task_row::select(db, "job = ? AND place <> ? LIMIT ?", params![bytes, leased, PAGE])?;
    for row in &page {
        transitions::remove(db, row)?;
    }
    Ok(page.len() as u64)
}

/// Gives a page of a job's tasks, those after the item `after`, another priority. Returns how many tasks moved, and the
/// last item of the page; `None` means that none is left.
fn reprioritize(
    db: &Db<'_>,
    job: JobId,
    priority: Priority,
    after: i64,
) -> rusqlite::Result<(u64, Option<i64>)> {
    let page = task_row::select(
        db,
        "job = ? AND item > ? ORDER BY item LIMIT ?",
        params![job.0.as_bytes(), after, PAGE],
    )?;
    let mut moved = 0;
    for row in &page {
        db.sql
            .prepare_cached("UPDATE task SET rank = ? WHERE seq = ?")?
            .execute(params![record::rank(priority), row.seq])?;
        moved += u64::from(row.state != TaskState::Leased && row.task.priority != priority);
    }
    Ok((moved, page.last().map(|row| i64::from(row.task.id.item))))
}

fn depth(db: &Db<'_>, stage: Stage) -> rusqlite::Result<Depth> {
    let stage = stage_number(stage);
    let (waiting, waiting_bytes): (u64, u64) = db
        .sql
        .prepare_cached(
            "SELECT COALESCE(SUM(waiting), 0), COALESCE(SUM(waiting_bytes), 0) FROM lane \
             WHERE stage = ? AND waiting > 0",
        )?
        .query_row([stage], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let count = |state: TaskState| -> rusqlite::Result<(u64, u64)> {
        db.sql
            .prepare_cached(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM task WHERE stage = ? AND place = ?",
            )?
            .query_row([stage, state as i64], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    let (exclusive, exclusive_bytes) = count(TaskState::Exclusive)?;
    let dead = db
        .sql
        .prepare_cached("SELECT COUNT(*) FROM dead WHERE stage = ?")?
        .query_row([stage], |row| row.get(0))?;
    // The tasks that are next in their tenants' queues, and the first one that must run alone.
    let oldest: Option<i64> = db
        .sql
        .prepare_cached(
            "SELECT MIN(first) FROM (SELECT (SELECT since_ms FROM task WHERE task.stage = lane.stage AND place = ?2 \
             AND task.tenant = lane.tenant ORDER BY rank, seq LIMIT 1) AS first FROM lane \
             WHERE lane.stage = ?1 AND waiting > 0 UNION ALL SELECT since_ms FROM \
             (SELECT since_ms FROM task WHERE stage = ?1 AND place = ?3 ORDER BY seq LIMIT 1))",
        )?
        .query_row([stage, TaskState::Waiting as i64, TaskState::Exclusive as i64], |row| row.get(0))?;
    Ok(Depth {
        waiting: waiting + exclusive,
        held: count(TaskState::Held)?.0,
        delayed: count(TaskState::Delayed)?.0,
        leased: count(TaskState::Leased)?.0,
        dead,
        bytes: waiting_bytes + exclusive_bytes,
        oldest: age(db, oldest),
        newer: count(TaskState::Newer)?.0,
    })
}

pub(super) fn stage_mode(db: &Db<'_>, stage: Stage) -> rusqlite::Result<StageMode> {
    let mode: i64 = db
        .sql
        .prepare_cached("SELECT flow FROM stage WHERE stage = ?")?
        .query_row([stage_number(stage)], |row| row.get(0))?;
    Ok(match mode {
        1 => StageMode::Pause,
        2 => StageMode::Drain,
        _ => StageMode::Run,
    })
}

/// Changes the mode. Unless the stage drains now, the tasks that were held before it enter.
fn set_stage_mode(db: &Db<'_>, stage: Stage, mode: StageMode) -> rusqlite::Result<()> {
    db.sql.execute("UPDATE stage SET flow = ? WHERE stage = ?", params![mode as i64, stage_number(stage)])?;
    if mode == StageMode::Drain {
        return Ok(());
    }
    let held = [stage_number(stage), TaskState::Held as i64];
    for mut row in task_row::select(db, "stage = ? AND place = ? ORDER BY seq", held)? {
        transitions::requeue(db, &mut row)?;
    }
    Ok(())
}
