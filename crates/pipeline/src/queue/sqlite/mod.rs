//! The queue of one machine: an SQLite file that several processes may share. A task is a row; its place is a column,
//! so that every move is one statement, and lanes count what a tenant has at a stage.

mod admin;
mod file;
mod lease;
mod settle;
mod task_row;
mod tenant_queue;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use embeddery_core::BoxFuture;
use rusqlite::params;

use super::{notifier::StageNotifier, record};
use crate::{
    Backlog, Consumer, DeadLetter, DeadLetterId, Depth, JobId, Lease, LeaseBatch, LeaseRequest, Op, Outcome,
    Priority, Queue, QueueError, QueueOptions, SettleResult, Stage, StageMode, Task, TaskId, WorkerStatus,
};
use writer::Writer;

/// The queue of one machine.
pub struct SqliteQueue {
    writer: Writer,
    bell: StageNotifier,
    options: QueueOptions,
    /// Stages where the last lease found nothing: the next one looks before it writes.
    quiet: [AtomicBool; 3],
}

/// Tasks in one step: others get between.
const PAGE: usize = 500;

/// How often somebody who waits looks for what other processes have enqueued.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl SqliteQueue {
    /// Opens the file, and makes it when it is not there.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for an operator.
    pub fn open(path: &Path, options: QueueOptions) -> Result<Self, QueueError> {
        let writer = Writer::start(file::open(path)?)?;
        Ok(Self { writer, bell: StageNotifier::default(), options, quiet: Default::default() })
    }

    fn ring_all(&self) {
        Stage::ALL.into_iter().for_each(|stage| self.bell.notify(stage));
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
                new.extend(self.writer.write(move |db| admin::enqueue(db, &page)).await?);
                self.ring_all();
            }
            Ok(new)
        })
    }

    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, LeaseBatch> {
        Box::pin(async move {
            let LeaseRequest { stage, consumer, most, length, idle } = request;
            self.bell.mark_seen(stage);
            let quiet = &self.quiet[usize::from(task_row::number(stage) as u8)];
            if quiet.load(Ordering::Relaxed)
                && !self.writer.read(move |db| lease::has_work(db, stage)).await?
            {
                return Ok(LeaseBatch::default());
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
        Box::pin(self.bell.wait(stage, at_most.min(POLL_INTERVAL)))
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

    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<SettleResult>> {
        Box::pin(async move {
            let outcomes = outcomes.to_vec();
            let settle = move |db: &writer::Db<'_>| {
                outcomes.iter().map(|(lease, outcome)| settle::settle(db, lease, outcome)).collect()
            };
            let done: Vec<(SettleResult, Option<Stage>)> = self.writer.write(settle).await?;
            for stage in Stage::ALL.into_iter().filter(|stage| done.iter().any(|(_, of)| *of == Some(*stage)))
            {
                self.bell.notify(stage);
            }
            Ok(done.into_iter().map(|(settled, _)| settled).collect())
        })
    }

    fn cancel(&self, job: JobId) -> Op<'_, u64> {
        Box::pin(async move {
            let mut taken = 0;
            loop {
                let (page, all) = self.writer.write(move |db| admin::cancel(db, job)).await?;
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
                let page = move |db: &writer::Db<'_>| admin::reprioritize(db, job, (priority, after));
                let (count, last) = self.writer.write(page).await?;
                moved += count;
                match last {
                    Some(last) => after = last,
                    None => return Ok(moved),
                }
            }
        })
    }

    fn contains<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>> {
        let ids = ids.to_vec();
        Box::pin(self.writer.read(move |db| admin::holds(db, &ids)))
    }

    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| admin::depth(db, stage).map(|depth| (stage, depth))).collect()
        }))
    }

    fn backlog<'a>(&'a self, tenant: &'a str) -> Op<'a, Backlog> {
        let tenant = tenant.to_owned();
        Box::pin(self.writer.read(move |db| admin::pressure(db, &tenant)))
    }

    fn set_flow(&self, stage: Stage, flow: StageMode) -> Op<'_, ()> {
        Box::pin(async move {
            self.writer.write(move |db| admin::set_flow(db, stage, flow)).await?;
            self.ring_all();
            Ok(())
        })
    }

    fn flow(&self) -> Op<'_, BTreeMap<Stage, StageMode>> {
        Box::pin(self.writer.read(|db| {
            Stage::ALL.into_iter().map(|stage| admin::flow(db, stage).map(|flow| (stage, flow))).collect()
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
        Box::pin(self.writer.read(move |db| admin::dead_letters(db, stage, (after, limit))))
    }

    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(self.writer.read(move |db| admin::dead_letter(db, stage, id)))
    }

    fn revive<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(async move {
            let revived = self.writer.write(move |db| admin::remove_dead_letter(db, stage, id, true)).await;
            self.bell.notify(stage);
            revived
        })
    }

    fn delete_dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        let id = id.0.parse().unwrap_or(-1);
        Box::pin(self.writer.write(move |db| admin::remove_dead_letter(db, stage, id, false)))
    }

    fn annotate<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool> {
        let (id, remark): (i64, _) = (id.0.parse().unwrap_or(-1), remark.to_owned());
        Box::pin(self.writer.write(move |db| admin::remark(db, (stage, id), &remark)))
    }

    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>> {
        let ids: Vec<i64> = ids.iter().map(|id| id.0.parse().unwrap_or(-1)).collect();
        Box::pin(
            self.writer.read(move |db| ids.iter().map(|id| admin::remark_of(db, (stage, *id))).collect()),
        )
    }

    fn heartbeat<'a>(&'a self, worker: &'a WorkerStatus, lives: Duration) -> Op<'a, ()> {
        let (consumer, report) = (worker.consumer.0.clone(), record::write_report(worker));
        let options = self.options;
        Box::pin(self.writer.write(move |db| {
            lease::record_activity(db, options.outage_threshold)?;
            db.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO worker (consumer, report, until_ms) VALUES (?, ?, ?)",
                )?
                .execute(params![consumer, report, db.now + millis(lives)])?;
            admin::sweep(db, &options)
        }))
    }

    fn workers(&self) -> Op<'_, Vec<WorkerStatus>> {
        Box::pin(self.writer.read(|db| {
            let mut statement =
                db.sql.prepare_cached("SELECT report FROM worker WHERE until_ms > ? ORDER BY consumer")?;
            let reports = statement.query_map([db.now], |row| row.get::<_, String>(0))?;
            reports.filter_map(|report| report.map(|text| record::read_report(&text)).transpose()).collect()
        }))
    }

    fn deregister<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()> {
        let consumer = consumer.clone();
        Box::pin(async move {
            self.writer.write(move |db| settle::retire(db, &consumer)).await?;
            self.ring_all();
            Ok(())
        })
    }

    fn health(&self) -> Op<'_, Vec<String>> {
        Box::pin(async move {
            self.writer.read(|db| admin::flow(db, Stage::Chunking)).await?;
            Ok(Vec::new())
        })
    }
}
