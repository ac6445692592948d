//! The orchestrator: pools of workers in this process, more of them while work waits and fewer when it does not.
//!
//! Nobody leads. Every orchestrator looks at the same queue, counts the workers of all processes, and changes only
//! its own pools; so any number of them, with any number of workers beside, work together, and one that dies takes
//! nothing along but its own workers, whose documents the queue hands out again.

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

/// Workers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// What its workers do.
    pub stage: Stage,
    /// Workers at the start, and the fewest later.
    pub workers: usize,
    /// Documents that a worker takes together.
    pub slots: usize,
    /// Charged failures after which a document fails.
    pub max_attempts: u32,
    /// What work under way gets after the stop was asked for.
    pub grace: Duration,
}

/// How an orchestrator works.
pub struct OrchestratorConfig {
    /// Its pools.
    pub pools: Vec<PoolConfig>,
    /// When pools grow and shrink; `None`: never.
    pub scaling: Option<Scaling>,
    /// How often it looks at the queue and its workers.
    pub look_every: Duration,
    /// A worker that has documents and has ended none for so long is replaced.
    pub stalled_after: Duration,
}

/// Makes a worker of a pool.
pub type SpawnWorker = Box<dyn Fn(&PoolConfig) -> io::Result<Worker> + Send + Sync>;

/// How the orchestrator finds things.
#[derive(Clone, Debug, Default)]
pub struct OrchestratorStatus {
    /// Why nothing is known of the queue now.
    pub trouble: Option<String>,
    /// Workers of each pool, and how many of them are stalled.
    pub pools: BTreeMap<String, (usize, usize)>,
}

/// An orchestrator.
pub struct Orchestrator {
    config: OrchestratorConfig,
    queue: Arc<dyn QueueAdmin>,
    hire: SpawnWorker,
    metrics: OrchestratorMetrics,
    findings: Arc<Mutex<OrchestratorStatus>>,
}

/// What the queue says at one moment.
struct QueueSnapshot {
    depth: BTreeMap<Stage, Depth>,
    flow: BTreeMap<Stage, StageMode>,
    workers: Vec<WorkerStatus>,
}

impl Orchestrator {
    /// An orchestrator that has not begun.
    pub fn new(
        config: OrchestratorConfig,
        queue: Arc<dyn QueueAdmin>,
        hire: SpawnWorker,
        metrics: OrchestratorMetrics,
    ) -> Self {
        Self { config, queue, hire, metrics, findings: Arc::default() }
    }

    /// How it finds things, now and later.
    pub fn findings(&self) -> Arc<Mutex<OrchestratorStatus>> {
        Arc::clone(&self.findings)
    }

    /// Works until `stop`, then ends its workers in order.
    ///
    /// # Errors
    /// When the first workers cannot be made.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut pools: Vec<Pool> = self.config.pools.iter().cloned().map(Pool::new).collect();
        for pool in &mut pools {
            while pool.size() < pool.config.workers {
                pool.add(&self.hire)?;
            }
        }
        let mut look = tokio::time::interval(self.config.look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut scaled = Instant::now();
        loop {
            tokio::select! { _ = look.tick() => {}, () = stop.cancelled() => break }
            let sight = tokio::select! { sight = self.snapshot() => sight, () = stop.cancelled() => break };
            match sight {
                Ok(sight) => {
                    self.metrics.seen(&sight.depth);
                    self.replace_stalled(&mut pools, &sight.workers);
                    if let Some(scaling) =
                        self.config.scaling.as_ref().filter(|scaling| scaled.elapsed() >= scaling.every)
                    {
                        scaled = Instant::now();
                        self.scale(&mut pools, &sight, scaling);
                    }
                    self.note(&pools, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue does not answer; the pools stay as they are");
                    self.note(&pools, Some(error.to_string()));
                }
            }
        }
        futures_util::future::join_all(pools.into_iter().map(Pool::end)).await;
        Ok(())
    }

    async fn snapshot(&self) -> Result<QueueSnapshot, QueueError> {
        Ok(QueueSnapshot {
            depth: self.queue.depth().await?,
            flow: self.queue.stage_modes().await?,
            workers: self.queue.workers().await?,
        })
    }

    /// Replaces workers that have ended by themselves or make no progress.
    fn replace_stalled(&self, pools: &mut [Pool], reports: &[WorkerStatus]) {
        for pool in pools {
            let size = pool.size();
            for why in pool.tend(reports, self.config.stalled_after) {
                self.metrics.replaced(pool.config.stage);
                tracing::error!(pool = pool.config.name, "a worker is replaced: {why}");
            }
            while pool.size() < size {
                if let Err(error) = pool.add(&self.hire) {
                    tracing::error!(pool = pool.config.name, %error, "a worker could not be started; trying again");
                    break;
                }
            }
        }
    }

    fn scale(&self, pools: &mut [Pool], sight: &QueueSnapshot, scaling: &Scaling) {
        for index in 0..pools.len() {
            let total: usize = pools.iter().map(Pool::size).sum();
            let pool = &mut pools[index];
            let stage = pool.config.stage;
            let everywhere = sight.workers.iter().filter(|report| report.stages.contains(&stage)).count();
            let now = scale::ScalingInput {
                waiting: sight.depth.get(&stage).map_or(0, |depth| depth.waiting),
                everywhere: everywhere.max(pool.size()),
                here: pool.size(),
                least: pool.config.workers,
                room: scaling.max_workers.saturating_sub(total),
                flows: sight.flow.get(&stage).is_none_or(|flow| *flow != StageMode::Pause),
            };
            let wanted = scaling.desired_size(&now);
            if wanted != now.here {
                tracing::info!(
                    pool = pool.config.name,
                    waiting = now.waiting,
                    "scaling from {} to {wanted} workers",
                    now.here
                );
            }
            while pool.size() > wanted {
                pool.stop_one(&sight.workers);
            }
            while pool.size() < wanted {
                if let Err(error) = pool.add(&self.hire) {
                    tracing::error!(pool = pool.config.name, %error, "a worker could not be started");
                    break;
                }
            }
        }
    }

    fn note(&self, pools: &[Pool], trouble: Option<String>) {
        self.metrics.pools(pools.iter().map(|pool| (pool.config.stage, pool.size(), pool.stalled())));
        let pools = pools.iter().map(|pool| (pool.config.name.clone(), (pool.size(), pool.stalled())));
        *self.findings.lock().unwrap_or_else(PoisonError::into_inner) =
            OrchestratorStatus { trouble, pools: pools.collect() };
    }
}
