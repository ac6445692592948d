//! Adds tasks, and says what the queue holds.

use rusqlite::{Row, params};

use super::{SqliteQueue, admin, age, transitions, writer::Db};
use crate::{Backlog, BacklogSize, Op, StageMode, Task, TaskId, TaskProducer};

/// Maximum tasks in one transaction. It bounds how long other callers wait for the file.
const PAGE: usize = 500;

impl TaskProducer for SqliteQueue {
    fn enqueue<'a>(&'a self, tasks: &'a [Task]) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let mut new = Vec::with_capacity(tasks.len());
            for page in tasks.chunks(PAGE) {
                let page = page.to_vec();
                new.extend(self.writer.write(move |db| enqueue(db, &page)).await?);
                self.notify_all();
            }
            Ok(new)
        })
    }

    fn contains<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>> {
        let ids = ids.to_vec();
        Box::pin(self.writer.read(move |db| contains(db, &ids)))
    }

    fn backlog<'a>(&'a self, tenant: &'a str) -> Op<'a, Backlog> {
        let tenant = tenant.to_owned();
        Box::pin(self.writer.read(move |db| backlog(db, &tenant)))
    }
}

fn enqueue(db: &Db<'_>, tasks: &[Task]) -> rusqlite::Result<Vec<bool>> {
    let mut new = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = params![task.id.job.0.as_bytes(), task.id.item];
        let mut held = db.sql.prepare_cached("SELECT 1 FROM task WHERE job = ? AND item = ?")?;
        if held.exists(id)? {
            new.push(false);
            continue;
        }
        db.sql.prepare_cached("DELETE FROM dead WHERE job = ? AND item = ?")?.execute(id)?;
        transitions::insert(db, task, admin::stage_mode(db, task.stage)? == StageMode::Drain)?;
        new.push(true);
    }
    Ok(new)
}

fn contains(db: &Db<'_>, ids: &[TaskId]) -> rusqlite::Result<Vec<bool>> {
    let mut statement = db.sql.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM task WHERE job = ?1 AND item = ?2) \
         OR EXISTS (SELECT 1 FROM dead WHERE job = ?1 AND item = ?2)",
    )?;
    ids.iter()
        .map(|id| statement.query_row(params![id.job.0.as_bytes(), id.item], |row| row.get(0)))
        .collect()
}

fn backlog(db: &Db<'_>, tenant: &str) -> rusqlite::Result<Backlog> {
    let size = |row: &Row<'_>| {
        let oldest: Option<i64> = row.get(2)?;
        Ok(BacklogSize { items: row.get(0)?, bytes: row.get(1)?, oldest: age(db, oldest) })
    };
    Ok(Backlog {
        tenant: db
            .sql
            .prepare_cached(
                "SELECT COALESCE(SUM(items), 0), COALESCE(SUM(bytes), 0), \
                 (SELECT enqueued_at_ms FROM task WHERE tenant = ?1 ORDER BY seq LIMIT 1) \
                 FROM lane WHERE stage IN (0, 1, 2) AND tenant = ?1",
            )?
            .query_row([tenant], size)?,
        all: db
            .sql
            .prepare_cached(
                "SELECT COALESCE(SUM(items), 0), COALESCE(SUM(bytes), 0), \
                 (SELECT enqueued_at_ms FROM task ORDER BY seq LIMIT 1) FROM lane",
            )?
            .query_row([], size)?,
    })
}
