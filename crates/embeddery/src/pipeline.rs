//! The pipeline of this process: where jobs and the queue are, what works on documents, and how it all ends.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use embeddery_accounts::Ledger;
use embeddery_gateway::Router;
use embeddery_pipeline::{
    JobStore, Queue, QueueOptions, SqliteJobs, SqliteJobsConfig, SqliteQueue, Stage, Worker, WorkerConfig,
    WorkerMetrics, reconcile,
    stages::{Lanes, Tools},
};
use embeddery_server::App;
use embeddery_store::VectorStore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Config;

/// The truth about jobs, and who does what next.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) jobs: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn Queue>,
}

/// What work is done with, besides.
pub(crate) struct Means {
    pub(crate) router: Arc<Router>,
    pub(crate) store: Arc<dyn VectorStore>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: WorkerMetrics,
}

impl Means {
    /// Those of an API that works on documents itself.
    pub(crate) fn of(app: &App, metrics: WorkerMetrics) -> Self {
        Self {
            router: Arc::clone(&app.router),
            store: Arc::clone(&app.collections.store),
            ledger: Arc::clone(&app.accounts.ledger),
            metrics,
        }
    }
}

impl Parts {
    /// Opens the job store, and the queue that configuration names. A Redis that is away is no reason to fail.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let jobs = SqliteJobsConfig {
            path: config.state_dir.join("jobs.db"),
            min_free_bytes: config.collections.embedded.min_free_bytes,
        };
        let jobs = SqliteJobs::open(jobs).map_err(anyhow::Error::msg)?;
        let queue = SqliteQueue::open(&config.state_dir.join("queue.db"), QueueOptions::default())?;
        Ok(Self { jobs: Arc::new(jobs), queue: Arc::new(queue) })
    }

    /// Starts what runs in the background until `stop`: the reconciler, and a worker of these stages. Who waits for
    /// the answer waits until what is under way then is finished or handed back.
    pub(crate) fn start(
        &self,
        config: &Config,
        work: Option<(Vec<Stage>, Means)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<TaskTracker> {
        let running = TaskTracker::new();
        let (jobs, queue) = (Arc::clone(&self.jobs), Arc::clone(&self.queue));
        running.spawn(reconcile(jobs, queue, config.workers.reconcile, stop.clone()));
        if let Some((stages, means)) = work {
            running.spawn(self.worker(config, stages, means)?.run(stop.clone()));
        }
        running.close();
        Ok(running)
    }

    fn worker(&self, config: &Config, stages: Vec<Stage>, means: Means) -> anyhow::Result<Worker> {
        let workers = &config.workers;
        let tools = Tools {
            jobs: Arc::clone(&self.jobs),
            store: means.store,
            router: means.router,
            ledger: means.ledger,
            dimension_policy: config.server.dimension_policy,
            lanes: Lanes::default(),
            patience: workers.deadline / 2,
        };
        let settings = WorkerConfig {
            stages,
            concurrency: workers.concurrency,
            slots: workers.slots.clone(),
            lease: LEASE,
            deadline: workers.deadline,
            max_attempts: MAX_ATTEMPTS,
            backoff: workers.backoff,
            grace: config.shutdown_grace,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let worker = Worker::new(Arc::new(tools), Arc::clone(&self.queue), settings, means.metrics);
        worker.context("starting the thread that renews leases")
    }
}

/// How long a document is a worker's without a sign of life.
const LEASE: Duration = Duration::from_secs(60);
/// Charged failures after which a document fails.
const MAX_ATTEMPTS: u32 = 3;
