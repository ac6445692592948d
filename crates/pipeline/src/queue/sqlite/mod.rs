//! The queue of one machine: an SQLite file that several processes may share. A task is a row; its place is a column,
//! so that every move is one statement, and lanes count what a tenant has at a stage.

mod file;
mod lane;
mod lease;
mod row;
mod settle;
mod state;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use embeddery_core::BoxFuture;
use rusqlite::params;

use super::{bell::Bell, record};
use crate::{
    Consumer, DeadLetter, DeadLetterId, Depth, Flow, Handout, JobId, Lease, LeaseRequest, Op, Outcome,
    Pressure, Priority, Queue, QueueError, QueueOptions, Settled, Stage, Task, TaskId, WorkerReport,
};
use writer::Writer;

/// The queue of one machine.
pub struct SqliteQueue {
    writer: Writer,
    bell: Bell,
    options: QueueOptions,
    /// Stages where the last lease found nothing: the next one looks before it writes.
    quiet: [AtomicBool; 3],
}

/// Tasks in one step: others get between.
const PAGE: usize = 500;

/// How often somebody who waits looks for what other processes have enqueued.
const LOOK: Duration = Duration::from_millis(250);

impl SqliteQueue {
    /// Opens the file, and makes it when it is not there.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for an operator.
    pub fn open(path: &Path, options: QueueOptions) -> Result<Self, QueueError> {
        let writer = Writer::start(file::open(path)?)?;
        Ok(Self { writer, bell: Bell::default(), options, quiet: Default::default() })
    }

    fn ring_all(&self) {
        Stage::ALL.into_iter().for_each(|stage| self.bell.ring(stage));
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

impl Queue for SqliteQueue {
    fn enqueue<'a>(&'a self, tasks: &'a [Task]) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let mut new = Vec::with_capacity(tasks.len());
            for page in tasks.chunks(PAGE) {
                let page = page.to_vec();
                new.extend(self.writer.write(move |db| state::enqueue(db, &page)).await?);
                self.ring_all();
            }
            Ok(new)
        })
    }

    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, Handout> {
        Box::pin(async move {
            let LeaseRequest { stage, consumer, most, length, idle } = request;
            self.bell.hear(stage);
            let quiet = &self.quiet[usize::from(row::number(stage) as u8)];
            if quiet.load(Ordering::Relaxed)
                && !self.writer.read(move |db| lease::anything(db, stage)).await?
            {
                return Ok(Handout::default());
            }
            let asked = lease::Asked {
                stage,
                consumer: consumer.clone(),
                most,
                length_ms: millis(length),
                idle,
                options: self.options,
            };
            let handout = self.writer.write(move |db| lease::lease(db, &asked)).await?;
            quiet.store(handout.leases.is_empty(), Ordering::Relaxed);
            Ok(handout)
        })
    }

    fn wait(&self, stage: Stage, at_most: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.bell.wait(stage, at_most.min(LOOK)))
    }

    fn renew<'a>(&'a self, leases: &'a [Lease], by: Duration) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let leases = leases.to_vec();
            let renew = move |db: &writer::Db<'_>| {
                leases.iter().map(|lease| settle::renew(db, lease, millis(by))).collect()
            };
            self.writer.write(renew).await
        })
    }

    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<Settled>> {
        Box::pin(async move {
            let outcomes = outcomes.to_vec();
            let settle = move |db: &writer::Db<'_>| {
                outcomes.iter().map(|(lease, outcome)| settle::settle(db, lease, outcome)).collect()
            };
            let done: Vec<(Settled, Option<Stage>)> = self.writer.write(settle).await?;
            for stage in Stage::ALL.into_iter().filter(|stage| done.iter().any(|(_, of)| *of == Some(*stage)))
            {
                self.bell.ring(stage);
            }
            Ok(done.into_iter().map(|(settled, _)| settled).collect())
        })
    }

    fn cancel(&self, job: JobId) -> Op<'_, u64> {
        Box::pin(async move {
            let mut taken = 0;
            loop {
                let (page, all) = self.writer.write(move |db| state::cancel(db, job)).await?;
                taken += page;
                if all {
                    return Ok(taken);
                }
            }
        })
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> Op<'_, u64> {
        Box::pin(async move {
            let (mut moved, mut after) = (0, -1);
            loop {
                let page = move |db: &writer::Db<'_>| state::reprioritize(db, job, (priority, after));
                let (count, last) = self.writer.write(page).await?;
                moved += count;
                match last {
                    Some(last) => after = last,
                    None => return Ok(moved),
                }
            }
        })
    }

    fn holds<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>> {
        let ids = ids.to_vec();
        Box::pin(self.writer.read(move |db| state::holds(db, &ids)))
    }

    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| state::depth(db, stage).map(|depth| (stage, depth))).collect()
        }))
    }

    fn pressure<'a>(&'a self, tenant: &'a str) -> Op<'a, Pressure> {
        let tenant = tenant.to_owned();
        Box::pin(self.writer.read(move |db| state::pressure(db, &tenant)))
    }

    fn set_flow(&self, stage: Stage, flow: Flow) -> Op<'_, ()> {
        Box::pin(async move {
            self.writer.write(move |db| state::set_flow(db, stage, flow)).await?;
            self.ring_all();
            Ok(())
        })
    }

    fn flow(&self) -> Op<'_, BTreeMap<Stage, Flow>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| state::flow(db, stage).map(|flow| (stage, flow))).collect()
        }))
    }

    fn dead_letters(
        &self,
        stage: Stage,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Op<'_, Vec<DeadLetter>> {
        // An id that is none of ours comes before all: there is nothing after it.
        let after = after.map(|id| id.0.parse().unwrap_or(0));
        Box::pin(self.writer.read(move |db| state::dead_letters(db, stage, (after, limit))))
    }

    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(self.writer.read(move |db| state::dead_letter(db, stage, id)))
    }

    fn revive<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(async move {
            let revived = self.writer.write(move |db| state::take_letter(db, stage, id, true)).await;
            self.bell.ring(stage);
            revived
        })
    }

    fn bury<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(self.writer.write(move |db| state::take_letter(db, stage, id, false)))
    }

    fn remark<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool> {
        let (id, remark): (i64, _) = (id.0.parse().unwrap_or(-1), remark.to_owned());
        Box::pin(self.writer.write(move |db| state::remark(db, (stage, id), &remark)))
    }

    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>> {
        let ids: Vec<i64> = ids.iter().map(|id| id.0.parse().unwrap_or(-1)).collect();
        Box::pin(
            self.writer.read(move |db| ids.iter().map(|id| state::remark_of(db, (stage, *id))).collect()),
        )
    }

    fn report<'a>(&'a self, worker: &'a WorkerReport, lives: Duration) -> Op<'a, ()> {
        let (consumer, report) = (worker.consumer.0.clone(), record::write_report(worker));
        let options = self.options;
        Box::pin(self.writer.write(move |db| {
            lease::hear(db, options.silence)?;
            db.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO worker (consumer, report, until_ms) VALUES (?, ?, ?)",
                )?
                .execute(params![consumer, report, db.now + millis(lives)])?;
            state::sweep(db, &options)
        }))
    }

    fn workers(&self) -> Op<'_, Vec<WorkerReport>> {
        Box::pin(self.writer.read(|db| {
            let mut statement =
                db.sql.prepare_cached("SELECT report FROM worker WHERE until_ms > ? ORDER BY consumer")?;
            let reports = statement.query_map([db.now], |row| row.get::<_, String>(0))?;
            reports.filter_map(|report| report.map(|text| record::read_report(&text)).transpose()).collect()
        }))
    }

    fn retire<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()> {
        let consumer = consumer.clone();
        Box::pin(async move {
            self.writer.write(move |db| settle::retire(db, &consumer)).await?;
            self.ring_all();
            Ok(())
        })
    }

    fn health(&self) -> Op<'_, Vec<String>> {
        Box::pin(async move {
            self.writer.read(|db| state::flow(db, Stage::Chunking)).await?;
            Ok(Vec::new())
        })
    }
}
