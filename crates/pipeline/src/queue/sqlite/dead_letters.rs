//! Dead letters: rows of the table `dead`.

use embeddery_core::to_ms;
use rusqlite::{OptionalExtension as _, params};

use super::{
    super::record,
    SqliteQueue,
    task_row::{job_id, stage_number},
    writer::Db,
};
use crate::{DeadLetter, DeadLetterId, DeadLetterStore, Op, QueueOptions, Reason, Stage, TaskId};

impl DeadLetterStore for SqliteQueue {
    fn dead_letters(
        &self,
        stage: Stage,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Op<'_, Vec<DeadLetter>> {
        // Ids count from 1, so nothing comes after an id that is not a number.
        let before = after.map_or(i64::MAX, |id| id.0.parse().unwrap_or(0));
        Box::pin(self.writer.read(move |db| list(db, stage, before, limit)))
    }

    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>> {
        let id = row_id(id);
        Box::pin(self.writer.read(move |db| {
            let letter = list(db, stage, id.saturating_add(1), 1)?.pop();
            Ok(letter.filter(|letter| letter.id.0 == id.to_string()))
        }))
    }

    fn delete_dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        let id = row_id(id);
        Box::pin(self.writer.write(move |db| {
            let mut delete = db.sql.prepare_cached("DELETE FROM dead WHERE stage = ? AND id = ?")?;
            Ok(delete.execute([stage_number(stage), id])? > 0)
        }))
    }

    fn annotate<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool> {
        let (id, remark) = (row_id(id), remark.to_owned());
        Box::pin(self.writer.write(move |db| {
            let mut update =
                db.sql.prepare_cached("UPDATE dead SET remark = ? WHERE stage = ? AND id = ?")?;
            Ok(update.execute(params![remark, stage_number(stage), id])? > 0)
        }))
    }

    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>> {
        let ids: Vec<i64> = ids.iter().map(row_id).collect();
        Box::pin(self.writer.read(move |db| ids.iter().map(|id| remark(db, stage, *id)).collect()))
    }
}

/// The row's key; -1, which no row has, when the id is not a number.
fn row_id(id: &DeadLetterId) -> i64 {
    id.0.parse().unwrap_or(-1)
}

/// The dead letters of a stage whose ids are below `before`, newest first.
fn list(db: &Db<'_>, stage: Stage, before: i64, limit: usize) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = db.sql.prepare_cached(
        "SELECT id, job, item, task, code, message, at_ms FROM dead WHERE stage = ? AND id < ? \
         ORDER BY id DESC LIMIT ?",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let letters = statement.query_map(params![stage_number(stage), before, limit], |row| {
        let message: String = row.get(3)?;
        // The row of a task that could not be read has no job.
        let id = row.get(1).ok().map(|id| TaskId { job: job_id(id), item: row.get(2).unwrap_or_default() });
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

fn remark(db: &Db<'_>, stage: Stage, id: i64) -> rusqlite::Result<Option<String>> {
    let mut select = db.sql.prepare_cached("SELECT remark FROM dead WHERE stage = ? AND id = ?")?;
    let remark = select.query_row([stage_number(stage), id], |row| row.get(0)).optional()?;
    Ok(remark.flatten())
}

/// Removes dead letters that are too old or too many.
pub(super) fn purge(db: &Db<'_>, options: &QueueOptions) -> rusqlite::Result<()> {
    let age = to_ms(options.dead_letter_age).cast_signed();
    db.sql.prepare_cached("DELETE FROM dead WHERE at_ms < ?")?.execute([db.now.saturating_sub(age)])?;
    for stage in Stage::ALL {
        db.sql
            .prepare_cached(
                "DELETE FROM dead WHERE stage = ?1 AND id <= \
                 (SELECT id FROM dead WHERE stage = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute([stage_number(stage), i64::from(options.dead_letters)])?;
    }
    Ok(())
}
