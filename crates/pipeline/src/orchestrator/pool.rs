//! Workers of one kind: started, watched, and ended in order.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{PoolConfig, SpawnWorker};
use crate::{Consumer, WorkerStatus};

pub(super) struct Pool {
    pub(super) config: PoolConfig,
    workers: Vec<PoolWorker>,
    /// Told to end, and not yet at their end; true for those that made no progress.
    leaving: Vec<(JoinHandle<()>, bool)>,
}

/// A worker of ours.
struct PoolWorker {
    consumer: Consumer,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// What it had ended when that last changed, and when that was.
    ended: u64,
    since: Instant,
}

impl Pool {
    pub(super) fn new(config: PoolConfig) -> Self {
        Self { config, workers: Vec::new(), leaving: Vec::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Workers that were replaced because they made no progress, and are still there.
    pub(super) fn stalled(&self) -> usize {
        self.leaving.iter().filter(|(_, stalled)| *stalled).count()
    }

    pub(super) fn add(&mut self, hire: &SpawnWorker) -> io::Result<()> {
        let worker = hire(&self.config)?;
        let (consumer, stop) = (worker.consumer().clone(), CancellationToken::new());
        let task = tokio::spawn(worker.run(stop.clone()));
        self.workers.push(PoolWorker { consumer, stop, task, ended: 0, since: Instant::now() });
        Ok(())
    }

    /// Lets one go, an idle one where there is one. What it has under way it ends.
    pub(super) fn stop_one(&mut self, reports: &[WorkerStatus]) {
        let idle = |member: &PoolWorker| {
            reports.iter().any(|report| report.consumer == member.consumer && report.busy == 0)
        };
        let index = self.workers.iter().rposition(idle).or(self.workers.len().checked_sub(1));
        if let Some(index) = index {
            let member = self.workers.remove(index);
            member.stop.cancel();
            self.leaving.push((member.task, false));
        }
    }

    /// Takes out the workers that have ended by themselves or make no progress, and says why.
    pub(super) fn tend(&mut self, reports: &[WorkerStatus], patience: Duration) -> Vec<String> {
        self.leaving.retain(|(task, _)| !task.is_finished());
        let mut reasons = Vec::new();
        let now = Instant::now();
        for mut member in std::mem::take(&mut self.workers) {
            if member.task.is_finished() {
                reasons.push(format!("{} has ended by itself", member.consumer.0));
                continue;
            }
            if let Some(report) = reports.iter().find(|report| report.consumer == member.consumer) {
                let ended = report.done + report.failed;
                if report.busy == 0 || ended != member.ended {
                    (member.ended, member.since) = (ended, now);
                }
            }
            let still = now.duration_since(member.since);
            if still < patience {
                self.workers.push(member);
                continue;
            }
            reasons.push(format!(
                "{} has documents and has ended none for {} seconds; others get them when their leases run out",
                member.consumer.0,
                still.as_secs()
            ));
            member.stop.cancel();
            self.leaving.push((member.task, true));
        }
        reasons
    }

    /// Ends all and waits for them; not for ever, because a stalled one may never come.
    pub(super) async fn end(self) {
        for member in &self.workers {
            member.stop.cancel();
        }
        let tasks = self.workers.into_iter().map(|member| member.task);
        let tasks = tasks.chain(self.leaving.into_iter().map(|(task, _)| task));
        let all = futures_util::future::join_all(tasks);
        if tokio::time::timeout(self.config.grace + Duration::from_secs(5), all).await.is_err() {
            tracing::warn!(pool = self.config.name, "workers do not end; their documents go to others");
        }
    }
}
