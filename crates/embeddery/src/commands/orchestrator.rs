//! `embeddery orchestrator`: runs pools of workers in one process and scales them with the load, until a signal.

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
    pipeline_setup::{PipelineHandles, WorkerDeps, check_shared_directory, worker_config},
    process_metrics, stores, wiring,
};

/// Maximum time between two checks of the queue and the workers.
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
             only `serve`: without Redis it processes documents itself"
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
    let pipeline = PipelineHandles::open(config)?;
    let mut registry = Registry::default();
    process_metrics::register(&mut registry);
    pipeline.jobs.metrics().register(&mut registry);
    let (router, _) = wiring::router(config, &mut registry)?;
    let deps = WorkerDeps {
        ingest: Ingest {
            router,
            store: stores::vector_store(config, &mut registry)?,
            ledger: Arc::new(Ledger::open(wiring::ledger(config)).map_err(anyhow::Error::msg)?),
            quota: Arc::default(),
        },
        metrics: WorkerMetrics::new(&mut registry),
    };
    let orchestrator = Orchestrator::new(
        orchestrator_config(config),
        pipeline.queue.clone(),
        worker_factory(config, &pipeline, deps),
        OrchestratorMetrics::new(&mut registry),
    );
    // The metrics server stops after the workers, so that their shutdown can be observed.
    let (monitoring, stop_monitoring) = (TaskTracker::new(), CancellationToken::new());
    if let Some(listener) = listener {
        let server = MetricsServer { registry, health: health(&orchestrator) };
        monitoring.spawn(serve_metrics(listener, server, stop_monitoring.clone()));
    }
    monitoring.close();
    let result = work(config, &pipeline, orchestrator, &stop).await;
    stop_monitoring.cancel();
    monitoring.wait().await;
    result?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn work(
    config: &Config,
    pipeline: &PipelineHandles,
    orchestrator: Orchestrator,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if pipeline.wait_for_queue(stop).await?.is_none() {
        return Ok(()); // stopped before the queue was reachable
    }
    let database = config.collections.database.is_some();
    check_shared_directory((&config.state_dir, database), &*pipeline.queue).await?;
    let background = TaskTracker::new();
    let (jobs, queue) = (Arc::clone(&pipeline.jobs), Arc::clone(&pipeline.queue));
    background.spawn(run_retention(jobs.clone(), config.jobs.retention, stop.clone()));
    background.spawn(reconcile(jobs, queue, config.workers.reconcile, stop.clone()));
    background.close();
    for pool in &config.orchestrator.pools {
        tracing::info!(
            pool = pool.name,
            stage = pool.stage.as_str(),
            workers = pool.workers,
            "processing documents"
        );
    }
    orchestrator.run(stop.clone()).await.context("starting workers")?;
    background.wait().await;
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
    // A worker gives up a document that hangs after the deadline. A worker that does not is stalled.
    let stalled_after = config.workers.deadline + 2 * config.queue.lease;
    OrchestratorConfig { pools: pools.collect(), scaling, poll_interval, stalled_after }
}

/// Creates workers of one stage each. They share the stage context and the exclusive gate.
fn worker_factory(config: &Config, pipeline: &PipelineHandles, deps: WorkerDeps) -> SpawnWorker {
    let metrics = deps.metrics.clone();
    let context = pipeline.stage_context(config, deps);
    let (queue, gate) = (Arc::clone(&pipeline.queue), ExclusiveGate::default());
    let common = worker_config(config, Vec::new());
    Box::new(move |pool| {
        let mut settings = common.clone();
        settings.stages = vec![pool.stage];
        settings.concurrency = 1;
        settings.slots.insert(pool.stage, pool.slots);
        settings.max_attempts = pool.max_attempts;
        settings.grace = pool.grace;
        let worker = Worker::new(Arc::clone(&context), queue.clone(), settings, metrics.clone())?;
        Ok(worker.sharing_gate(&gate))
    })
}

fn health(
    orchestrator: &Orchestrator,
) -> Box<dyn Fn() -> Result<std::collections::BTreeMap<String, String>, String> + Send + Sync> {
    let status = orchestrator.status();
    Box::new(move || {
        let status = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match status.queue_error {
            Some(error) => Err(format!("queue: {error}")),
            None => Ok(status
                .pools
                .into_iter()
                .map(|(name, (size, stalled))| (name, format!("{size} workers, {stalled} stalled")))
                .collect()),
        }
    })
}
