//! What the queue knows besides leases: who may be refused, what flows, how much is where, what is dead.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    super::record,
    task_row::{self, TaskState, job, number},
    writer::Db,
};
use crate::{
    Backlog, BacklogSize, DeadLetter, DeadLetterId, Depth, JobId, Priority, QueueOptions, Reason, Stage,
    StageMode, Task, TaskId,
};

pub(super) fn enqueue(db: &Db<'_>, tasks: &[Task]) -> rusqlite::Result<Vec<bool>> {
    let mut new = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = params![task.id.job.0.as_bytes(), task.id.item];
        let mut live = db.sql.prepare_cached("SELECT 1 FROM task WHERE job = ? AND item = ?")?;
        if live.exists(id)? {
            new.push(false);
            continue;
        }
        db.sql.prepare_cached("DELETE FROM dead WHERE job = ? AND item = ?")?.execute(id)?;
        task_row::insert(db, task, flow(db, task.stage)? == StageMode::Drain)?;
        new.push(true);
    }
    Ok(new)
}

pub(super) fn holds(db: &Db<'_>, ids: &[TaskId]) -> rusqlite::Result<Vec<bool>> {
    let mut statement = db.sql.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM task WHERE job = ?1 AND item = ?2) \
         OR EXISTS (SELECT 1 FROM dead WHERE job = ?1 AND item = ?2)",
    )?;
    ids.iter()
        .map(|id| statement.query_row(params![id.job.0.as_bytes(), id.item], |row| row.get(0)))
        .collect()
}

/// Tasks of a job that one step of a long work takes, so that others get between.
const PAGE: i64 = 1000;

/// One page of a cancel: how many were taken out, and whether that was all.
pub(super) fn cancel(db: &Db<'_>, job: JobId) -> rusqlite::Result<(u64, bool)> {
    let bytes = job.0.as_bytes();
    db.sql
        .prepare_cached("UPDATE task SET cancelled = 1 WHERE job = ? AND place = 4 AND NOT cancelled")?
        .execute([bytes])?;
    let page = task_row::select(db, "job = ? AND place <> 4 LIMIT ?", params![bytes, PAGE])?;
    for item in &page {
        task_row::remove(db, item)?;
    }
    Ok((page.len() as u64, (page.len() as i64) < PAGE))
}

/// One page of a change of priority, after this item: how many moved, and the last item.
pub(super) fn reprioritize(
    db: &Db<'_>,
    job: JobId,
    (priority, after): (Priority, i64),
) -> rusqlite::Result<(u64, Option<i64>)> {
    let page = task_row::select(
        db,
        "job = ? AND item > ? ORDER BY item LIMIT ?",
        params![job.0.as_bytes(), after, PAGE],
    )?;
    let mut moved = 0;
    for item in &page {
        db.sql
            .prepare_cached("UPDATE task SET rank = ? WHERE seq = ?")?
            .execute(params![record::rank(priority), item.seq])?;
        moved += u64::from(item.place != TaskState::Leased && item.task.priority != priority);
    }
    Ok((moved, page.last().map(|item| i64::from(item.task.id.item))))
}

pub(super) fn depth(db: &Db<'_>, of: Stage) -> rusqlite::Result<Depth> {
    let count =
        |sql: &str| db.sql.prepare_cached(sql)?.query_row([number(of)], |row| Ok((row.get(0)?, row.get(1)?)));
    let lanes: (u64, u64) = count(
        "SELECT COALESCE(SUM(waiting), 0), COALESCE(SUM(waiting_bytes), 0) FROM lane WHERE stage = ? AND waiting > 0",
    )?;
    let place = |place: TaskState| -> rusqlite::Result<(u64, u64)> {
        db.sql
            .prepare_cached(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM task WHERE stage = ? AND place = ?",
            )?
            .query_row([number(of), place as i64], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    let alone = place(TaskState::Alone)?;
    let dead: (u64, u64) = count("SELECT COUNT(*), 0 FROM dead WHERE stage = ?")?;
    let first: Option<i64> = db
        .sql
        .prepare_cached(
            "SELECT MIN(first) FROM (SELECT (SELECT since_ms FROM task WHERE task.stage = lane.stage AND place = 0 \
             AND task.tenant = lane.tenant ORDER BY rank, seq LIMIT 1) AS first FROM lane \
             WHERE lane.stage = ?1 AND waiting > 0 \
             UNION ALL SELECT since_ms FROM (SELECT since_ms FROM task WHERE stage = ?1 AND place = 1 ORDER BY seq LIMIT 1))",
        )?
        .query_row([number(of)], |row| row.get(0))?;
    Ok(Depth {
        waiting: lanes.0 + alone.0,
        held: place(TaskState::Held)?.0,
        delayed: place(TaskState::Delayed)?.0,
        leased: place(TaskState::Leased)?.0,
        dead: dead.0,
        bytes: lanes.1 + alone.1,
        oldest: age(db, first),
        newer: place(TaskState::Newer)?.0,
    })
}

fn age(db: &Db<'_>, since_ms: Option<i64>) -> Duration {
    Duration::from_millis(since_ms.map_or(0, |since| db.now.saturating_sub(since)).max(0).unsigned_abs())
}

pub(super) fn pressure(db: &Db<'_>, tenant: &str) -> rusqlite::Result<Backlog> {
    let asked = |row: &Row<'_>| {
        let since: Option<i64> = row.get(2)?;
        Ok(BacklogSize { items: row.get(0)?, bytes: row.get(1)?, oldest: age(db, since) })
    };
    Ok(Backlog {
        tenant: db
            .sql
            .prepare_cached(
                "SELECT COALESCE(SUM(items), 0), COALESCE(SUM(bytes), 0), \
                 (SELECT enqueued_at_ms FROM task WHERE tenant = ?1 ORDER BY seq LIMIT 1) \
                 FROM lane WHERE stage IN (0, 1, 2) AND tenant = ?1",
            )?
            .query_row([tenant], asked)?,
        all: db
            .sql
            .prepare_cached(
                "SELECT COALESCE(SUM(items), 0), COALESCE(SUM(bytes), 0), \
                 (SELECT enqueued_at_ms FROM task ORDER BY seq LIMIT 1) FROM lane",
            )?
            .query_row([], asked)?,
    })
}

pub(super) fn flow(db: &Db<'_>, of: Stage) -> rusqlite::Result<StageMode> {
    let flow: i64 = db
        .sql
        .prepare_cached("SELECT flow FROM stage WHERE stage = ?")?
        .query_row([number(of)], |row| row.get(0))?;
    Ok(match flow {
        1 => StageMode::Pause,
        2 => StageMode::Drain,
        _ => StageMode::Run,
    })
}

/// What was held goes in, unless the stage still drains.
pub(super) fn set_flow(db: &Db<'_>, of: Stage, flow: StageMode) -> rusqlite::Result<()> {
    db.sql.execute("UPDATE stage SET flow = ? WHERE stage = ?", params![flow as i64, number(of)])?;
    if flow == StageMode::Drain {
        return Ok(());
    }
    for mut item in task_row::select(db, "stage = ? AND place = 2 ORDER BY seq", [number(of)])? {
        task_row::enter(db, &mut item)?;
    }
    Ok(())
}

pub(super) fn dead_letters(
    db: &Db<'_>,
    of: Stage,
    (after, limit): (Option<i64>, usize),
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = db.sql.prepare_cached(
        "SELECT id, job, item, task, code, message, at_ms FROM dead WHERE stage = ? AND id < ? \
         ORDER BY id DESC LIMIT ?",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let letters = statement.query_map(params![number(of), after.unwrap_or(i64::MAX), limit], |row| {
        let message: String = row.get(3)?;
        // A row that could not be read names no job.
        let id = row.get(1).ok().map(|id| TaskId { job: job(id), item: row.get(2).unwrap_or_default() });
        let task = id.and_then(|id| record::read_task(id, &message).ok());
        Ok(DeadLetter {
            id: DeadLetterId(row.get::<_, i64>(0)?.to_string()),
            raw: task.is_none().then(|| message.into_bytes()),
            task,
            reason: Reason { code: row.get::<_, String>(4)?.into(), message: row.get(5)? },
            at_ms: row.get(6)?,
        })
    })?;
    letters.collect()
}

pub(super) fn dead_letter(db: &Db<'_>, of: Stage, id: i64) -> rusqlite::Result<Option<DeadLetter>> {
    let found = dead_letters(db, of, (Some(id.saturating_add(1)), 1))?.pop();
    Ok(found.filter(|letter| letter.id.0 == id.to_string()))
}

/// Takes a letter out; its task, when it can be read, goes back to the stage when `revived`.
pub(super) fn remove_dead_letter(db: &Db<'_>, of: Stage, id: i64, revived: bool) -> rusqlite::Result<bool> {
    let Some(letter) = dead_letter(db, of, id)? else { return Ok(false) };
    if revived && letter.task.is_none() {
        return Ok(false);
    }
    db.sql.prepare_cached("DELETE FROM dead WHERE id = ?")?.execute([id])?;
    if let (true, Some(task)) = (revived, letter.task) {
        enqueue(db, &[Task { attempts: 0, deaths: 0, ..task }])?;
    }
    Ok(true)
}

pub(super) fn remark(db: &Db<'_>, (of, id): (Stage, i64), remark: &str) -> rusqlite::Result<bool> {
    let mut update = db.sql.prepare_cached("UPDATE dead SET remark = ? WHERE stage = ? AND id = ?")?;
    Ok(update.execute(params![remark, number(of), id])? > 0)
}

pub(super) fn remark_of(db: &Db<'_>, (of, id): (Stage, i64)) -> rusqlite::Result<Option<String>> {
    let mut select = db.sql.prepare_cached("SELECT remark FROM dead WHERE stage = ? AND id = ?")?;
    let found = select.query_row(params![number(of), id], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

/// Drops dead letters that are too old or too many.
pub(super) fn sweep(db: &Db<'_>, options: &QueueOptions) -> rusqlite::Result<()> {
    let age = i64::try_from(options.dead_letter_age.as_millis()).unwrap_or(i64::MAX);
    db.sql.prepare_cached("DELETE FROM dead WHERE at_ms < ?")?.execute([db.now.saturating_sub(age)])?;
    for of in Stage::ALL {
        db.sql
            .prepare_cached(
                "DELETE FROM dead WHERE stage = ?1 AND id <= \
                 (SELECT id FROM dead WHERE stage = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute([number(of), i64::from(options.dead_letters)])?;
    }
    db.sql.prepare_cached("DELETE FROM worker WHERE until_ms <= ?")?.execute([db.now])?;
    Ok(())
}
