//! The queue traits, implemented by the scripts.

use std::{collections::BTreeMap, time::Duration};

use embeddery_core::{BoxFuture, to_ms};
use redis::Value;

use super::{
    super::record,
    RedisQueue,
    codec::{self, LeasedTask},
};
use crate::{
    Backlog, BacklogSize, Consumer, DeadLetter, DeadLetterId, DeadLetterStore, Depth, JobId, Lease,
    LeaseBatch, LeaseRequest, Op, Outcome, Priority, QueueAdmin, QueueError, SettleResult, Stage, StageMode,
    Task, TaskId, TaskProducer, WorkerQueue, WorkerStatus,
};

/// Maximum tasks in one script, so that other commands run in between.
const PAGE_SIZE: usize = 250;

impl TaskProducer for RedisQueue {
    fn enqueue<'a>(&'a self, tasks: &'a [Task]) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let mut new = Vec::with_capacity(tasks.len());
            for page in tasks.chunks(PAGE_SIZE) {
                let results: Vec<i64> = self
                    .inner
                    .run(&self.inner.scripts.enqueue, |call| {
                        for task in page {
                            call.arg(codec::write_id(task.id)).arg(record::write_task(task));
                        }
                    })
                    .await?;
                new.extend(results.into_iter().map(|result| result == 1));
            }
            Ok(new)
        })
    }

    fn contains<'a>(&'a self, ids: &'a [TaskId]) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let mut held = Vec::with_capacity(ids.len());
            for page in ids.chunks(PAGE_SIZE) {
                let results: Vec<i64> = self
                    .inner
                    .run(&self.inner.scripts.contains, |call| {
                        for id in page {
                            call.arg(codec::write_id(*id));
                        }
                    })
                    .await?;
                held.extend(results.into_iter().map(|result| result == 1));
            }
            Ok(held)
        })
    }

    fn backlog<'a>(&'a self, tenant: &'a str) -> Op<'a, Backlog> {
        Box::pin(async move {
            let numbers: [u64; 6] = self
                .inner
                .run(&self.inner.scripts.backlog, |call| {
                    call.arg(tenant);
                })
                .await?;
            let asked = |items, bytes, age| BacklogSize { items, bytes, oldest: Duration::from_millis(age) };
            let [items, bytes, age, all_items, all_bytes, all_age] = numbers;
            Ok(Backlog { tenant: asked(items, bytes, age), all: asked(all_items, all_bytes, all_age) })
        })
    }
}

impl WorkerQueue for RedisQueue {
    fn lease<'a>(&'a self, request: LeaseRequest<'a>) -> Op<'a, LeaseBatch> {
        Box::pin(async move {
            let LeaseRequest { stage, consumer, max_tasks: most, duration: length, idle } = request;
            self.inner.bell.mark_seen(stage);
            let result: Vec<Value> = self
                .inner
                .run_once(&self.inner.scripts.lease, |call| {
                    call.arg(stage.as_str()).arg(&consumer.0).arg(most).arg(to_ms(length));
                    call.arg(u8::from(idle)).arg(self.options.in_flight_per_tenant.unwrap_or(0));
                    call.arg(super::super::crash_message()).arg(to_ms(self.options.outage_threshold));
                })
                .await?;
            let Some(([Value::Int(wait), Value::Int(clear)], parts)) = result.split_first_chunk() else {
                return Err(QueueError::Internal("the lease script returned an unexpected result".into()));
            };
            self.inner.set_due(stage, *wait);
            let mut leases = Vec::new();
            for got in parts.chunks(4).filter_map(|parts| codec::read_leased(parts, consumer)) {
                match got {
                    LeasedTask::Readable(lease) => leases.push(lease),
                    // If this fails, the lease expires, and the next worker tries again.
                    LeasedTask::Unreadable(task) => {
                        if let Err(error) = self.dead_letter_unreadable(stage, consumer, task).await {
                            tracing::warn!(%error, "an unreadable message was not moved to the dead letters");
                        }
                    }
                }
            }
            Ok(LeaseBatch { leases, drain_for_exclusive: *clear == 1 })
        })
    }

    fn wait(&self, stage: Stage, at_most: Duration) -> BoxFuture<'_, ()> {
        self.start_listener();
        let at_most = self.inner.until_due(stage).map_or(at_most, |due| due.min(at_most));
        Box::pin(self.inner.bell.wait(stage, at_most))
    }

    fn renew<'a>(&'a self, leases: &'a [Lease], by: Duration) -> Op<'a, Vec<bool>> {
        Box::pin(async move {
            let mut held = Vec::with_capacity(leases.len());
            for page in leases.chunks(PAGE_SIZE) {
                let results: Vec<i64> = self
                    .inner
                    .run_heartbeat(&self.inner.scripts.renew, |call| {
                        call.arg(to_ms(by));
                        for lease in page {
                            call.arg(lease.task.stage.as_str()).arg(&lease.consumer.0);
                            call.arg(&lease.token).arg(codec::write_id(lease.task.id));
                        }
                    })
                    .await?;
                held.extend(results.into_iter().map(|result| result == 1));
            }
            Ok(held)
        })
    }

    fn settle<'a>(&'a self, outcomes: &'a [(Lease, Outcome)]) -> Op<'a, Vec<SettleResult>> {
        Box::pin(async move {
            let mut settled = Vec::with_capacity(outcomes.len());
            for page in outcomes.chunks(PAGE_SIZE) {
                let results: Vec<i64> = self
                    .inner
                    .run(&self.inner.scripts.settle, |call| {
                        let (most, age) = self.dead_letter_limits();
                        call.arg(most).arg(age);
                        for (lease, outcome) in page {
                            let (word, one, two) = codec::write_outcome(outcome);
                            call.arg(lease.task.stage.as_str()).arg(&lease.consumer.0).arg(&lease.token);
                            call.arg(codec::write_id(lease.task.id)).arg(word).arg(one).arg(two);
                        }
                    })
                    .await?;
                settled.extend(results.into_iter().map(|result| match result {
                    0 => SettleResult::Done,
                    2 => SettleResult::Cancelled,
                    _ => SettleResult::Lost,
                }));
            }
            Ok(settled)
        })
    }

    fn heartbeat<'a>(&'a self, worker: &'a WorkerStatus, lives: Duration) -> Op<'a, ()> {
        Box::pin(async move {
            let report = record::write_report(worker);
            let (most, age) = self.dead_letter_limits();
            let _: i64 = self
                .inner
                .run_heartbeat(&self.inner.scripts.heartbeat, |call| {
                    call.arg(&worker.consumer.0).arg(&report).arg(to_ms(lives)).arg(most).arg(age);
                    call.arg(to_ms(self.options.outage_threshold));
                })
                .await?;
            Ok(())
        })
    }

    fn deregister<'a>(&'a self, consumer: &'a Consumer) -> Op<'a, ()> {
        Box::pin(async move {
            loop {
                let more: i64 = self
                    .inner
                    .run(&self.inner.scripts.deregister, |call| {
                        call.arg(&consumer.0);
                    })
                    .await?;
                if more == 0 {
                    return Ok(());
                }
            }
        })
    }
}

impl QueueAdmin for RedisQueue {
    fn cancel(&self, job: JobId) -> Op<'_, u64> {
        Box::pin(async move {
            let (mut cursor, mut taken) = ("0".to_owned(), 0);
            loop {
                let page: (String, u64) = self
                    .inner
                    .run(&self.inner.scripts.cancel, |call| {
                        call.arg(job.to_string()).arg(&cursor);
                    })
                    .await?;
                taken += page.1;
                cursor = page.0;
                if cursor == "0" {
                    return Ok(taken);
                }
            }
        })
    }

    fn reprioritize(&self, job: JobId, priority: Priority) -> Op<'_, u64> {
        Box::pin(async move {
            let (mut cursor, mut moved) = ("0".to_owned(), 0);
            loop {
                let page: (String, u64) = self
                    .inner
                    .run(&self.inner.scripts.reprioritize, |call| {
                        call.arg(job.to_string()).arg(&cursor).arg(record::rank(priority));
                    })
                    .await?;
                moved += page.1;
                cursor = page.0;
                if cursor == "0" {
                    return Ok(moved);
                }
            }
        })
    }

    fn depth(&self) -> Op<'_, BTreeMap<Stage, Depth>> {
        Box::pin(async move {
            let numbers: Vec<u64> = self.inner.run(&self.inner.scripts.depth, |_| {}).await?;
            let depths = numbers.chunks_exact(8).map(|part| Depth {
                waiting: part[0],
                held: part[1],
                delayed: part[2],
                leased: part[3],
                dead: part[4],
                bytes: part[5],
                oldest: Duration::from_millis(part[6]),
                newer: part[7],
            });
            Ok(Stage::ALL.into_iter().zip(depths).collect())
        })
    }

    fn stage_modes(&self) -> Op<'_, BTreeMap<Stage, StageMode>> {
        Box::pin(async move {
            let modes: Vec<u8> = self.inner.run(&self.inner.scripts.stage_mode, |_| {}).await?;
            let modes = modes.into_iter().map(|mode| match mode {
                1 => StageMode::Pause,
                2 => StageMode::Drain,
                _ => StageMode::Run,
            });
            Ok(Stage::ALL.into_iter().zip(modes).collect())
        })
    }

    fn set_stage_mode(&self, stage: Stage, mode: StageMode) -> Op<'_, ()> {
        Box::pin(async move {
            loop {
                let left: u64 = self
                    .inner
                    .run(&self.inner.scripts.stage_mode, |call| {
                        call.arg(stage.as_str()).arg(mode as u8);
                    })
                    .await?;
                if left == 0 {
                    return Ok(());
                }
            }
        })
    }

    fn workers(&self) -> Op<'_, Vec<WorkerStatus>> {
        Box::pin(async move {
            let reports: Vec<String> = self.inner.run(&self.inner.scripts.workers, |_| {}).await?;
            Ok(reports.iter().filter_map(|report| record::read_report(report)).collect())
        })
    }

    fn claim_installation<'a>(&'a self, offered: &'a str) -> Op<'a, String> {
        Box::pin(async move {
            let mut set = redis::cmd("SET");
            set.arg(self.inner.key(&["installation"])).arg(offered).arg("NX").arg("GET");
            let first: Option<String> = self.inner.query(&set).await?;
            Ok(first.unwrap_or_else(|| offered.to_owned()))
        })
    }

    fn health(&self) -> Op<'_, Vec<String>> {
        Box::pin(async move { Ok(self.inner.connection.health().await?) })
    }
}

impl DeadLetterStore for RedisQueue {
    fn dead_letters(
        &self,
        stage: Stage,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Op<'_, Vec<DeadLetter>> {
        Box::pin(async move {
            let stream = self.inner.key(&[stage.as_str(), "dlq"]);
            let from = match &after {
                None => "+".to_owned(),
                Some(id) if is_entry(&id.0) => format!("({}", id.0),
                // An id that is none of ours comes before all: there is nothing after it.
                Some(_) => return Ok(Vec::new()),
            };
            let mut list = redis::cmd("XREVRANGE");
            list.arg(stream).arg(from).arg("-").arg("COUNT").arg(limit);
            let found: Vec<codec::Entry> = self.inner.query(&list).await?;
            Ok(found
                .into_iter()
                .map(|entry| codec::read_dead_letter(entry, |raw| self.cipher.decrypt(raw)))
                .collect())
        })
    }

    fn dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, Option<DeadLetter>> {
        Box::pin(async move {
            if !is_entry(&id.0) {
                return Ok(None);
            }
            let mut range = redis::cmd("XRANGE");
            range.arg(self.inner.key(&[stage.as_str(), "dlq"])).arg(&id.0).arg(&id.0);
            let found: Vec<codec::Entry> = self.inner.query(&range).await?;
            let found = found.into_iter().next();
            Ok(found.map(|entry| codec::read_dead_letter(entry, |raw| self.cipher.decrypt(raw))))
        })
    }

    fn delete_dead_letter<'a>(&'a self, stage: Stage, id: &'a DeadLetterId) -> Op<'a, bool> {
        Box::pin(self.remove_dead_letter(stage, id))
    }

    fn annotate<'a>(&'a self, stage: Stage, id: &'a DeadLetterId, remark: &'a str) -> Op<'a, bool> {
        Box::pin(async move {
            if self.dead_letter(stage, id).await?.is_none() {
                return Ok(false);
            }
            let key = self.inner.key(&[stage.as_str(), "dlq", "remarks"]);
            let mut set = redis::cmd("HSET");
            set.arg(&key).arg(&id.0).arg(remark);
            let _: i64 = self.inner.query(&set).await?;
            // Ids are never used again, so what is left of letters that are gone does no harm until it goes, too.
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&key).arg(to_ms(self.options.dead_letter_age));
            let _: i64 = self.inner.query(&expire).await?;
            Ok(true)
        })
    }

    fn remarks<'a>(&'a self, stage: Stage, ids: &'a [DeadLetterId]) -> Op<'a, Vec<Option<String>>> {
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let mut get = redis::cmd("HMGET");
            get.arg(self.inner.key(&[stage.as_str(), "dlq", "remarks"]));
            for id in ids {
                get.arg(&id.0);
            }
            self.inner.query(&get).await
        })
    }
}

impl RedisQueue {
    async fn remove_dead_letter(&self, stage: Stage, id: &DeadLetterId) -> Result<bool, QueueError> {
        if !is_entry(&id.0) {
            return Ok(false);
        }
        let done: i64 = self
            .inner
            .run(&self.inner.scripts.remove_dead_letter, |call| {
                call.arg(stage.as_str()).arg(&id.0);
            })
            .await?;
        Ok(done == 1)
    }
}

/// Whether it is an id of a stream's entry.
fn is_entry(id: &str) -> bool {
    id.split_once('-').is_some_and(|(ms, number)| ms.parse::<u64>().is_ok() && number.parse::<u64>().is_ok())
}
