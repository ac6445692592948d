//! The orchestrator: pools of workers in this process, which grow while documents wait and shrink when they do not.
//!
//! Orchestrators have no leader. Each sees the same queue, counts the workers of all processes, and changes its own
//! pools only. Any number of them can run, beside any number of workers. When one crashes, its workers end with it, and
//! the queue hands their documents to other workers.

mod metrics;
mod pool;
mod scale;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

pub use metrics::OrchestratorMetrics;
use pool::Pool;
pub use scale::Scaling;

use crate::{Depth, QueueAdmin, QueueError, Stage, StageMode, Worker, WorkerStatus};

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// The stage that its workers serve.
    pub stage: Stage,
    /// The number of workers at the start, and the minimum later.
    pub workers: usize,
    /// Maximum documents that a worker leases at a time.
    pub slots: usize,
    /// Charged failures after which a document fails.
    pub max_attempts: u32,
    /// Time to finish the documents under way after a stop is requested.
    pub grace: Duration,
}

/// The settings of an orchestrator.
pub struct OrchestratorConfig {
    /// Its pools.
    pub pools: Vec<PoolConfig>,
    /// The rules by which pools grow and shrink; `None` keeps their size.
    pub scaling: Option<Scaling>,
    /// How often the queue and the workers are examined.
    pub poll_interval: Duration,
    /// A worker that has documents and ended none for this time is replaced.
    pub stalled_after: Duration,
}

/// Creates a worker of a pool.
pub type SpawnWorker = Box<dyn Fn(&PoolConfig) -> io::Result<Worker> + Send + Sync>;

/// The state of an orchestrator.
#[derive(Clone, Debug, Default)]
pub struct OrchestratorStatus {
    /// Why the queue could not be read at the last attempt.
    pub queue_error: Option<String>,
    /// For each pool, the number of workers and how many replaced workers have not ended.
    pub pools: BTreeMap<String, (usize, usize)>,
}

/// An orchestrator.
pub struct Orchestrator {
    config: OrchestratorConfig,
    queue: Arc<dyn QueueAdmin>,
    spawn_worker: SpawnWorker,
    metrics: OrchestratorMetrics,
    status: Arc<Mutex<OrchestratorStatus>>,
}

/// The state of the queue at one moment.
struct QueueSnapshot {
    depth: BTreeMap<Stage, Depth>,
    modes: BTreeMap<Stage, StageMode>,
    workers: Vec<WorkerStatus>,
}

impl Orchestrator {
    /// An orchestrator that has not started.
    pub fn new(
        config: OrchestratorConfig,
        queue: Arc<dyn QueueAdmin>,
        spawn_worker: SpawnWorker,
        metrics: OrchestratorMetrics,
    ) -> Self {
        Self { config, queue, spawn_worker, metrics, status: Arc::default() }
    }

    /// The status, which the orchestrator updates while it runs.
    pub fn status(&self) -> Arc<Mutex<OrchestratorStatus>> {
        Arc::clone(&self.status)
    }

    /// Runs until `stop`, then stops its workers.
    ///
    /// # Errors
    /// When the first workers cannot be created.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut pools: Vec<Pool> = self.config.pools.iter().cloned().map(Pool::new).collect();
        for pool in &mut pools {
            while pool.size() < pool.config.workers {
                pool.add(&self.spawn_worker)?;
            }
        }
        let mut ticks = tokio::time::interval(self.config.poll_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_scaled = Instant::now();
        loop {
            tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => break }
            let snapshot = tokio::select! {
                snapshot = self.snapshot() => snapshot,
                () = stop.cancelled() => break,
            };
            match snapshot {
                Ok(snapshot) => {
                    self.metrics.set_depths(&snapshot.depth);
                    self.replace_stalled(&mut pools, &snapshot.workers);
                    if let Some(scaling) = &self.config.scaling
                        && last_scaled.elapsed() >= scaling.interval
                    {
                        last_scaled = Instant::now();
                        self.scale(&mut pools, &snapshot, scaling);
                    }
                    self.set_status(&pools, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue cannot be reached; the pools keep their size");
                    self.set_status(&pools, Some(error.to_string()));
                }
            }
        }
        futures_util::future::join_all(pools.into_iter().map(Pool::shut_down)).await;
        Ok(())
    }

    async fn snapshot(&self) -> Result<QueueSnapshot, QueueError> {
        Ok(QueueSnapshot {
            depth: self.queue.depth().await?,
            modes: self.queue.stage_modes().await?,
            workers: self.queue.workers().await?,
        })
    }

    /// Replaces workers that have ended by themselves or make no progress.
    fn replace_stalled(&self, pools: &mut [Pool], statuses: &[WorkerStatus]) {
        for pool in pools {
            let size = pool.size();
            for reason in pool.remove_stalled(statuses, self.config.stalled_after) {
                self.metrics.count_replaced(pool.config.stage);
                tracing::error!(pool = pool.config.name, reason, "a worker is replaced");
            }
            while pool.size() < size {
                if let Err(error) = pool.add(&self.spawn_worker) {
                    tracing::error!(pool = pool.config.name, %error, "a worker could not be started; retrying");
                    break;
                }
            }
        }
    }

    fn scale(&self, pools: &mut [Pool], snapshot: &QueueSnapshot, scaling: &Scaling) {
        for index in 0..pools.len() {
            let process_workers: usize = pools.iter().map(Pool::size).sum();
            let pool = &mut pools[index];
            let stage = pool.config.stage;
            let total_workers =
                snapshot.workers.iter().filter(|status| status.stages.contains(&stage)).count();
            let input = scale::ScalingInput {
                waiting: snapshot.depth.get(&stage).map_or(0, |depth| depth.waiting),
                total_workers: total_workers.max(pool.size()),
                pool_workers: pool.size(),
                min_workers: pool.config.workers,
                spare_workers: scaling.max_workers.saturating_sub(process_workers),
                is_paused: snapshot.modes.get(&stage).is_some_and(|mode| *mode == StageMode::Pause),
            };
            let desired = scaling.desired_size(&input);
            if desired != input.pool_workers {
                tracing::info!(
                    pool = pool.config.name,
                    waiting = input.waiting,
                    from = input.pool_workers,
                    to = desired,
                    "the pool is scaled"
                );
            }
            while pool.size() > desired {
                pool.stop_one(&snapshot.workers);
            }
            while pool.size() < desired {
                if let Err(error) = pool.add(&self.spawn_worker) {
                    tracing::error!(pool = pool.config.name, %error, "a worker could not be started");
                    break;
                }
            }
        }
    }

    fn set_status(&self, pools: &[Pool], queue_error: Option<String>) {
        self.metrics.set_pools(pools.iter().map(|pool| (pool.config.stage, pool.size(), pool.stalled())));
        let pools = pools.iter().map(|pool| (pool.config.name.clone(), (pool.size(), pool.stalled())));
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
            OrchestratorStatus { queue_error, pools: pools.collect() };
    }
}
