//! The worker's side of the queue: leases, settlements, heartbeats.

use std::{sync::atomic::Ordering, time::Duration};

use embeddery_core::{BoxFuture, to_ms};
use rusqlite::params;

use super::{
    super::record,
    SqliteQueue, dead_letters, lease, settle,
    task_row::{self, TaskState},
    transitions,
    writer::Db,
};
use crate::{
    Consumer, Lease, LeaseBatch, LeaseRequest, Op, Outcome, QueueOptions, SettleResult, Stage, WorkerQueue,
    WorkerStatus,
};

/// How often a waiting worker looks for tasks that other processes have enqueued.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl WorkerQueue for SqliteQueue {
    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, LeaseBatch> {
        Box::pin(async move {
            let stage = request.stage;
            self.notifier.mark_seen(stage);
            let quiet = &self.quiet[usize::from(task_row::stage_number(stage) as u8)];
            if quiet.load(Ordering::Relaxed)
                && !self.writer.read(move |db| lease::has_work(db, stage)).await?
            {
                return Ok(LeaseBatch::default());
            }
            let request = lease::OwnedRequest {
                stage,
                consumer: request.consumer.clone(),
                max_tasks: request.max_tasks,
                duration_ms: to_ms(request.duration).cast_signed(),
                idle: request.idle,
                options: self.options,
            };
            let batch = self.writer.write(move |db| lease::lease(db, &request)).await?;
            quiet.store(batch.leases.is_empty(), Ordering::Relaxed);
            Ok(batch)
        })
    }

    fn wait(&self, stage: Stage, max_wait: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.notifier.wait(stage, max_wait.min(POLL_INTERVAL)))
    }

    fn renew<'a>(&'a self, leases: &'a [Lease], duration: Duration) -> Op<'a, Vec<bool>> {
        let leases = leases.to_vec();
        Box::pin(self.writer.write(move |db| {
            leases.iter().map(|lease| settle::renew(db, lease, to_ms(duration).cast_signed())).collect()
        }))
    }

    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<SettleResult>> {
        Box::pin(async move {
            let outcomes = outcomes.to_vec();
            let settle = move |db: &Db<'_>| {
                outcomes.iter().map(|(lease, outcome)| settle::settle(db, lease, outcome)).collect()
            };
            let settled: Vec<(SettleResult, Option<Stage>)> = self.writer.write(settle).await?;
            for stage in Stage::ALL {
                if settled.iter().any(|(_, changed)| *changed == Some(stage)) {
                    self.notifier.notify(stage);
                }
            }
            Ok(settled.into_iter().map(|(result, _)| result).collect())
        })
    }

    fn heartbeat<'a>(&'a self, worker: &'a WorkerStatus, ttl: Duration) -> Op<'a, ()> {
        let (consumer, report) = (worker.consumer.0.clone(), record::write_report(worker));
        let options = self.options;
        Box::pin(self.writer.write(move |db| heartbeat(db, &consumer, &report, ttl, &options)))
    }

    fn deregister<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()> {
        let consumer = consumer.clone();
        Box::pin(async move {
            self.writer.write(move |db| deregister(db, &consumer)).await?;
            self.notify_all();
            Ok(())
        })
    }
}

fn heartbeat(
    db: &Db<'_>,
    consumer: &str,
    report: &str,
    ttl: Duration,
    options: &QueueOptions,
) -> rusqlite::Result<()> {
    lease::record_activity(db, options.outage_threshold)?;
    db.sql
        .prepare_cached("INSERT OR REPLACE INTO worker (consumer, report, until_ms) VALUES (?, ?, ?)")?
        .execute(params![consumer, report, db.now + to_ms(ttl).cast_signed()])?;
    dead_letters::purge(db, options)?;
    db.sql.prepare_cached("DELETE FROM worker WHERE until_ms <= ?")?.execute([db.now])?;
    Ok(())
}

/// Releases the leases of a worker that shuts down in order, uncharged, and removes the worker.
fn deregister(db: &Db<'_>, consumer: &Consumer) -> rusqlite::Result<()> {
    for stage in Stage::ALL {
        let leased = task_row::select(
            db,
            "stage = ? AND place = ? AND consumer = ?",
            params![task_row::stage_number(stage), TaskState::Leased as i64, consumer.0],
        )?;
        for mut row in leased {
            if row.cancelled {
                transitions::remove(db, &row)?;
            } else {
                transitions::requeue(db, &mut row)?;
            }
        }
    }
    db.sql.execute("DELETE FROM worker WHERE consumer = ?", [&consumer.0])?;
    Ok(())
}
