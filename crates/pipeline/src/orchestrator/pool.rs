//! The workers of one pool: started, watched and stopped.

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
    stopping: Vec<StoppingWorker>,
}

/// A worker of the pool.
struct PoolWorker {
    consumer: Consumer,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// The number of documents that it has ended.
    ended: u64,
    /// When `ended` changed, or the worker was idle, for the last time.
    last_progress: Instant,
}

/// A worker that was told to stop and has not ended.
struct StoppingWorker {
    task: JoinHandle<()>,
    /// Whether it made no progress.
    stalled: bool,
}

impl Pool {
    pub(super) fn new(config: PoolConfig) -> Self {
        Self { config, workers: Vec::new(), stopping: Vec::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// The number of workers that were replaced because they made no progress, and have not ended.
    pub(super) fn stalled(&self) -> usize {
        self.stopping.iter().filter(|worker| worker.stalled).count()
    }

    /// Starts a worker.
    pub(super) fn add(&mut self, spawn_worker: &SpawnWorker) -> io::Result<()> {
        let worker = spawn_worker(&self.config)?;
        let (consumer, stop) = (worker.consumer().clone(), CancellationToken::new());
        let task = tokio::spawn(worker.run(stop.clone()));
        self.workers.push(PoolWorker { consumer, stop, task, ended: 0, last_progress: Instant::now() });
        Ok(())
    }

    /// Stops one worker, an idle one if possible. It finishes its documents.
    pub(super) fn stop_one(&mut self, statuses: &[WorkerStatus]) {
        let is_idle = |worker: &PoolWorker| {
            statuses.iter().any(|status| status.consumer == worker.consumer && status.busy == 0)
        };
        let index = self.workers.iter().rposition(is_idle).or(self.workers.len().checked_sub(1));
        if let Some(index) = index {
            let worker = self.workers.remove(index);
            worker.stop.cancel();
            self.stopping.push(StoppingWorker { task: worker.task, stalled: false });
        }
    }

    /// Removes the workers that have ended by themselves or made no progress for `stall_timeout`. Returns the reason for
    /// each.
    pub(super) fn remove_stalled(
        &mut self,
        statuses: &[WorkerStatus],
        stall_timeout: Duration,
    ) -> Vec<String> {
        self.stopping.retain(|worker| !worker.task.is_finished());
        let mut reasons = Vec::new();
        let now = Instant::now();
        for mut worker in std::mem::take(&mut self.workers) {
            if worker.task.is_finished() {
                reasons.push(format!("{} has ended by itself", worker.consumer.0));
                continue;
            }
            if let Some(status) = statuses.iter().find(|status| status.consumer == worker.consumer) {
                let ended = status.done + status.failed;
                if status.busy == 0 || ended != worker.ended {
                    (worker.ended, worker.last_progress) = (ended, now);
                }
            }
            let stalled_for = now.duration_since(worker.last_progress);
            if stalled_for < stall_timeout {
                self.workers.push(worker);
                continue;
            }
            reasons.push(format!(
                "{} has documents and has ended none for {} s; other workers get them when their leases expire",
                worker.consumer.0,
                stalled_for.as_secs()
            ));
            worker.stop.cancel();
            self.stopping.push(StoppingWorker { task: worker.task, stalled: true });
        }
        reasons
    }

    /// Stops all workers and waits for them. The wait is bounded, because a stalled worker may never end.
    pub(super) async fn shut_down(self) {
        for worker in &self.workers {
            worker.stop.cancel();
        }
        let tasks = self.workers.into_iter().map(|worker| worker.task);
        let tasks = tasks.chain(self.stopping.into_iter().map(|worker| worker.task));
        let all = futures_util::future::join_all(tasks);
        if tokio::time::timeout(self.config.grace + Duration::from_secs(5), all).await.is_err() {
            tracing::warn!(
                pool = self.config.name,
                "workers do not end; other workers get their documents when their leases expire"
            );
        }
    }
}
