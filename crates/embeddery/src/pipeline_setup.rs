//! The pipeline of this process: it opens the job store and the queue, and starts the background work on documents.

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
    stores,
};

/// The job store, which is authoritative, and the queue.
#[derive(Clone)]
pub(crate) struct PipelineHandles {
    pub(crate) jobs: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn Queue>,
}

/// The dependencies of a worker besides the [`PipelineHandles`].
pub(crate) struct WorkerDeps {
    pub(crate) ingest: Ingest,
    pub(crate) metrics: WorkerMetrics,
}

impl WorkerDeps {
    /// The dependencies of a worker in the process of the API.
    pub(crate) fn for_app(app: &App, metrics: WorkerMetrics) -> Self {
        Self { ingest: app.ingest(), metrics }
    }
}

impl PipelineHandles {
    /// Opens the job store and the configured queue. An unreachable Redis is not an error.
    ///
    /// # Errors
    /// If the job store or the queue's file cannot be opened, or `REDIS_URL` is invalid.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let jobs = stores::job_store(config)?;
        let queue: Arc<dyn Queue> = match &config.queue.redis {
            Some(redis) => Arc::new(
                RedisQueue::connect(redis.clone())
                    .map_err(|error| ConfigError(vec![format!("REDIS_URL: {error}")]))?,
            ),
            None => Arc::new(SqliteQueue::open(&config.state_dir.join("queue.db"), config.queue.options)?),
        };
        Ok(Self { jobs, queue })
    }

    /// Waits until the queue is reachable. Returns `None` if `stop` is cancelled first.
    pub(crate) async fn wait_for_queue(&self, stop: &CancellationToken) -> anyhow::Result<Option<()>> {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        let mut attempt = 0;
        loop {
            match self.queue.health().await {
                // The findings were logged when the connection was opened.
                Ok(_) => return Ok(Some(())),
                Err(error @ (QueueError::Unavailable(_) | QueueError::Full(_))) => {
                    tracing::warn!(%error, "the queue is unreachable; retrying");
                }
                Err(error) => return Err(error).context("the queue cannot be used"),
            }
            let pause = backoff.ceiling(attempt);
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return Ok(None) }
            attempt += 1;
        }
    }

    /// Starts the background work, which runs until `stop`: the retention, the reconciler, and a worker of the given
    /// stages. The tracker is empty when all work in progress is finished or handed back.
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
        if let Some((stages, deps)) = work {
            running.spawn(self.worker(config, stages, deps)?.run(stop.clone()));
        }
        running.close();
        Ok(running)
    }

    fn worker(&self, config: &Config, stages: Vec<Stage>, deps: WorkerDeps) -> anyhow::Result<Worker> {
        let metrics = deps.metrics.clone();
        let context = self.stage_context(config, deps);
        let worker = Worker::new(context, self.queue.clone(), worker_config(config, stages), metrics);
        worker.context("starting the thread that renews leases")
    }

    /// The context in which the stages run.
    pub(crate) fn stage_context(&self, config: &Config, deps: WorkerDeps) -> Arc<StageContext> {
        Arc::new(StageContext {
            jobs: Arc::clone(&self.jobs),
            ingest: deps.ingest,
            dimension_policy: config.server.dimension_policy,
            paused_providers: PausedProviders::default(),
            timeout: config.workers.deadline / 2,
        })
    }
}

/// The configuration of a worker of these stages.
pub(crate) fn worker_config(config: &Config, stages: Vec<Stage>) -> WorkerConfig {
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

/// The file in the state directory that holds the name of this installation. All its processes read it.
const INSTALLATION_FILE: &str = "installation";

/// Checks that all processes that share this Redis also share the state directory, which holds jobs and collections.
/// With a database the directory need not be shared.
pub(crate) async fn check_shared_directory(
    (state_dir, database): (&Path, bool),
    queue: &dyn QueueAdmin,
) -> anyhow::Result<()> {
    if database {
        return Ok(());
    }
    let (path, created) = installation_file(state_dir).context("naming this installation")?;
    let ours = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let theirs =
        queue.claim_installation(ours.trim()).await.context("asking for the name of the installation")?;
    if theirs == ours.trim() {
        return Ok(());
    }
    if created {
        let _ = std::fs::remove_file(&path);
    }
    Err(ConfigError(vec![format!(
        "EMBEDDINGS_STATE_DIR: {} is not the directory that the other processes of this Redis use. On one host, give all of them the same USER_DB_BASE_DIR; on several hosts, set DATABASE_URL, so that jobs and collections are in PostgreSQL",
        state_dir.display()
    )])
    .into())
}

/// Creates the file if it is missing. Returns its path and whether this call created it: of several processes that try
/// at the same time, one creates it.
fn installation_file(state_dir: &Path) -> std::io::Result<(std::path::PathBuf, bool)> {
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
