//! `embeddery orchestrator`: pools of workers in one process, that grow and shrink with the work, until a signal.

use std::{
    process::ExitCode,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use embeddery_accounts::Ledger;
use embeddery_ingest::Ingest;
use embeddery_pipeline::{
    ExclusiveGate, Orchestrator, OrchestratorConfig, OrchestratorMetrics, PoolConfig, Scaling, SpawnWorker,
    Worker, WorkerMetrics, reconcile, run_retention,
};
use embeddery_server::{MetricsServer, serve_metrics};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{println_stdout, serve, signals::on_signals};
use crate::{
    cli,
    config::{self, Config, ConfigError, Flags},
    logging, otlp,
    pipeline_setup::{PipelineHandles, WorkerDeps, check_shared_directory, settings},
    process_metrics, wiring,
};

/// How often the queue and the workers are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &cli::Orchestrator, flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut config = config::load(flags)?;
    if let Some(workers) = options.workers {
        config.orchestrator.pools.iter_mut().for_each(|pool| pool.workers = workers.get());
    }
    let (_, traces) = logging::start_traced(&config)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    serve::check_directories(&config)?;
    super::runtime()?.block_on(otlp::with_exporter(traces, orchestrate(&config)))
}

async fn orchestrate(config: &Config) -> anyhow::Result<ExitCode> {
    if config.queue.redis.is_none() {
        bail!(ConfigError(vec![
            "REDIS_URL: is not set; an orchestrator takes documents from Redis. Set it here and for `serve`, or run \
             `serve` alone: without Redis it works on documents itself"
                .into()
        ]));
    }
    let stop = on_signals()?;
    let listener = match config.orchestrator.monitoring {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("PROMETHEUS_PORT: cannot listen on {address}; is another orchestrator running here?")
        })?),
        None => None,
    };
    if let Some(listener) = &listener {
        println_stdout(format_args!("metrics on http://{}/metrics", listener.local_addr()?));
    }
    let parts = PipelineHandles::open(config)?;
    let mut registry = Registry::default();
    process_metrics::register(&mut registry);
    parts.jobs.metrics().register(&mut registry);
    let (router, _) = wiring::router(config, &mut registry)?;
    let means = WorkerDeps {
        ingest: Ingest {
            router,
            store: wiring::vector_store(config, &mut registry)?,
            ledger: Arc::new(Ledger::open(wiring::ledger(config)).map_err(anyhow::Error::msg)?),
            quota: Arc::default(),
        },
        metrics: WorkerMetrics::new(&mut registry),
    };
    let orchestrator = Orchestrator::new(
        orchestrator_config(config),
        parts.queue.clone(),
        worker_factory(config, &parts, means),
        OrchestratorMetrics::new(&mut registry),
    );
    // Metrics outlive the work: the end of it can be watched.
    let (monitoring, watched) = (TaskTracker::new(), CancellationToken::new());
    if let Some(listener) = listener {
        let monitored = MetricsServer { registry, health: health(&orchestrator) };
        monitoring.spawn(serve_metrics(listener, monitored, watched.clone()));
    }
    monitoring.close();
    let ended = work(config, &parts, orchestrator, &stop).await;
    watched.cancel();
    monitoring.wait().await;
    ended?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn work(
    config: &Config,
    parts: &PipelineHandles,
    orchestrator: Orchestrator,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if parts.wait_for_queue(stop).await?.is_none() {
        return Ok(()); // it was told to stop before the queue answered
    }
    let database = config.collections.database.is_some();
    check_shared_directory((&config.state_dir, database), &*parts.queue).await?;
    let reconciling = TaskTracker::new();
    let (jobs, queue) = (Arc::clone(&parts.jobs), Arc::clone(&parts.queue));
    reconciling.spawn(run_retention(jobs.clone(), config.jobs.retention, stop.clone()));
    reconciling.spawn(reconcile(jobs, queue, config.workers.reconcile, stop.clone()));
    reconciling.close();
    for pool in &config.orchestrator.pools {
        tracing::info!(
            pool = pool.name,
            stage = pool.stage.as_str(),
            workers = pool.workers,
            "working on documents"
        );
    }
    orchestrator.run(stop.clone()).await.context("starting workers")?;
    reconciling.wait().await;
    Ok(())
}

fn orchestrator_config(config: &Config) -> OrchestratorConfig {
    let settings = &config.orchestrator;
    let pools = settings.pools.iter().map(|pool| PoolConfig {
        name: pool.name.clone(),
        stage: pool.stage,
        workers: pool.workers,
        slots: pool.slots.or_else(|| config.workers.slots.get(&pool.stage).copied()).unwrap_or(1),
        max_attempts: pool.max_attempts.unwrap_or(config.queue.max_attempts),
        grace: pool.grace.unwrap_or(config.shutdown_grace),
    });
    let scaling = settings.scaling.map(|scaling| Scaling {
        up: scaling.up,
        down: scaling.down,
        interval: scaling.every,
        max_workers: scaling.max_workers,
        max_memory: scaling.max_memory,
        memory: process_metrics::resident_bytes,
    });
    let poll_interval = settings.scaling.map_or(POLL_INTERVAL, |scaling| POLL_INTERVAL.min(scaling.every));
    // Documents that hang are given up after the deadline; who does not even do that is stalled.
    let stalled_after = config.workers.deadline + 2 * config.queue.lease;
    OrchestratorConfig { pools: pools.collect(), scaling, poll_interval, stalled_after }
}

/// Workers of one stage each. They share what they work with, and the rule that who must work alone does.
fn worker_factory(config: &Config, parts: &PipelineHandles, means: WorkerDeps) -> SpawnWorker {
    let metrics = means.metrics.clone();
    let (tools, queue, floor) =
        (parts.tools(config, means), Arc::clone(&parts.queue), ExclusiveGate::default());
    let common = settings(config, Vec::new());
    Box::new(move |pool| {
        let mut settings = common.clone();
        settings.stages = vec![pool.stage];
        settings.concurrency = 1;
        settings.slots.insert(pool.stage, pool.slots);
        settings.max_attempts = pool.max_attempts;
        settings.grace = pool.grace;
        let worker = Worker::new(Arc::clone(&tools), queue.clone(), settings, metrics.clone())?;
        Ok(worker.sharing_gate(&floor))
    })
}

fn health(
    orchestrator: &Orchestrator,
) -> Box<dyn Fn() -> Result<std::collections::BTreeMap<String, String>, String> + Send + Sync> {
    let status = orchestrator.status();
    Box::new(move || {
        let status = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match status.queue_error {
            Some(trouble) => Err(format!("queue: {trouble}")),
            None => Ok(status
                .pools
                .into_iter()
                .map(|(name, (size, stalled))| (name, format!("{size} workers, {stalled} stalled")))
                .collect()),
        }
    })
}
