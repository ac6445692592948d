//! The pipeline of this process: where jobs and the queue are, what works on documents, and how it all ends.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use embeddery_core::Backoff;
use embeddery_ingest::Ingest;
use embeddery_pipeline::{
    JobStore, Queue, QueueAdmin, QueueError, RedisQueue, SqliteQueue, Stage, Worker, WorkerConfig,
    WorkerMetrics, reconcile, run_retention,
    stages::{PausedProviders, StageContext},
};
use embeddery_server::App;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, ConfigError},
    wiring,
};

/// The truth about jobs, and who does what next.
#[derive(Clone)]
pub(crate) struct PipelineHandles {
    pub(crate) jobs: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn Queue>,
}

/// What work is done with, besides.
pub(crate) struct WorkerDeps {
    pub(crate) ingest: Ingest,
    pub(crate) metrics: WorkerMetrics,
}

impl WorkerDeps {
    /// Those of an API that works on documents itself.
    pub(crate) fn of(app: &App, metrics: WorkerMetrics) -> Self {
        Self { ingest: app.ingest(), metrics }
    }
}

impl PipelineHandles {
    /// Opens the job store, and the queue that configuration names. A Redis that is away is no reason to fail.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let jobs = wiring::job_store(config)?;
        let queue: Arc<dyn Queue> = match &config.queue.redis {
            Some(redis) => Arc::new(
                RedisQueue::connect(redis.clone())
                    .map_err(|error| ConfigError(vec![format!("REDIS_URL: {error}")]))?,
            ),
            None => Arc::new(SqliteQueue::open(&config.state_dir.join("queue.db"), config.queue.options)?),
        };
        Ok(Self { jobs, queue })
    }

    /// Waits until the queue answers; `None` when it is told to stop before.
    pub(crate) async fn wait_for_queue(&self, stop: &CancellationToken) -> anyhow::Result<Option<()>> {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        let mut attempt = 0;
        loop {
            match self.queue.health().await {
                // What it found is in the log since it connected.
                Ok(_) => return Ok(Some(())),
                Err(error @ (QueueError::Unavailable(_) | QueueError::Full(_))) => {
                    tracing::warn!(%error, "the queue does not answer; waiting for it");
                }
                Err(error) => return Err(error).context("the queue cannot be used"),
            }
            let pause = backoff.ceiling(attempt);
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return Ok(None) }
            attempt += 1;
        }
    }

    /// Starts what runs in the background until `stop`: the reconciler, and a worker of these stages. Who waits for
    /// the answer waits until what is under way then is finished or handed back.
    pub(crate) fn start(
        &self,
        config: &Config,
        work: Option<(Vec<Stage>, WorkerDeps)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<TaskTracker> {
        let running = TaskTracker::new();
        let (jobs, queue) = (Arc::clone(&self.jobs), Arc::clone(&self.queue));
        running.spawn(run_retention(jobs.clone(), config.jobs.retention, stop.clone()));
        running.spawn(reconcile(jobs, queue, config.workers.reconcile, stop.clone()));
        if let Some((stages, means)) = work {
            running.spawn(self.worker(config, stages, means)?.run(stop.clone()));
        }
        running.close();
        Ok(running)
    }

    fn worker(&self, config: &Config, stages: Vec<Stage>, means: WorkerDeps) -> anyhow::Result<Worker> {
        let metrics = means.metrics.clone();
        let tools = self.tools(config, means);
        let worker = Worker::new(tools, self.queue.clone(), settings(config, stages), metrics);
        worker.context("starting the thread that renews leases")
    }

    /// What documents are worked on with.
    pub(crate) fn tools(&self, config: &Config, means: WorkerDeps) -> Arc<StageContext> {
        Arc::new(StageContext {
            jobs: Arc::clone(&self.jobs),
            ingest: means.ingest,
            dimension_policy: config.server.dimension_policy,
            paused_providers: PausedProviders::default(),
            timeout: config.workers.deadline / 2,
        })
    }
}

/// How a worker of these stages works.
pub(crate) fn settings(config: &Config, stages: Vec<Stage>) -> WorkerConfig {
    let workers = &config.workers;
    WorkerConfig {
        stages,
        concurrency: workers.concurrency,
        slots: workers.slots.clone(),
        lease: config.queue.lease,
        deadline: workers.deadline,
        max_attempts: config.queue.max_attempts,
        backoff: workers.backoff,
        grace: config.shutdown_grace,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The name of this installation: a file in the state directory that all its processes see.
const INSTALLATION_FILE: &str = "installation";

/// Makes sure that all who share this Redis also share this directory, where jobs and collections are; with a
/// database they need not.
pub(crate) async fn check_shared_directory(
    (state_dir, database): (&Path, bool),
    queue: &dyn QueueAdmin,
) -> anyhow::Result<()> {
    if database {
        return Ok(());
    }
    let (path, made) = marker(state_dir).context("naming this installation")?;
    let ours = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let theirs =
        queue.claim_installation(ours.trim()).await.context("asking for the name of the installation")?;
    if theirs == ours.trim() {
        return Ok(());
    }
    if made {
        let _ = std::fs::remove_file(&path);
    }
    Err(ConfigError(vec![format!(
        "EMBEDDINGS_STATE_DIR: {} is not the directory that the other processes of this Redis use. On one host, give all of them the same USER_DB_BASE_DIR; on several hosts, set DATABASE_URL, so that jobs and collections are in PostgreSQL",
        state_dir.display()
    )])
    .into())
}

/// The marker's path, and whether it is new. Of several who make it at one moment, one does.
fn marker(state_dir: &Path) -> std::io::Result<(std::path::PathBuf, bool)> {
    let path = state_dir.join(INSTALLATION_FILE);
    let name = uuid::Uuid::now_v7().to_string();
    let draft = state_dir.join(format!(".{INSTALLATION_FILE}-{name}"));
    std::fs::write(&draft, &name)?;
    let linked = std::fs::hard_link(&draft, &path);
    std::fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok((path, true)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok((path, false)),
        Err(error) => Err(error),
    }
}
