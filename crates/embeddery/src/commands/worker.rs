//! `embeddery worker`: brings documents of jobs through stages until a signal.

use std::{process::ExitCode, sync::Arc};

use anyhow::bail;
use embeddery_accounts::Ledger;
use embeddery_ingest::Ingest;
use embeddery_pipeline::{Stage, WorkerMetrics};
use prometheus_client::registry::Registry;

use super::{serve, signals::on_signals};
use crate::{
    cli::Worker,
    config::{self, Config, ConfigError, Flags},
    logging, otlp,
    pipeline_setup::{PipelineHandles, WorkerDeps, check_shared_directory},
    wiring,
};

pub(crate) fn run(options: &Worker, flags: &Flags) -> anyhow::Result<ExitCode> {
    let stages = stages(&options.stages)?;
    let mut config = config::load(flags)?;
    if let Some(concurrency) = options.concurrency {
        config.workers.concurrency = concurrency.get();
    }
    let (_, traces) = logging::start_traced(&config)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    serve::check_directories(&config)?;
    super::runtime()?.block_on(otlp::with_exporter(traces, work(&config, stages)))
}

async fn work(config: &Config, stages: Vec<Stage>) -> anyhow::Result<ExitCode> {
    if config.queue.redis.is_none() {
        bail!(ConfigError(vec![
            "REDIS_URL: is not set; workers take documents from Redis. Set it here and for `serve`, or run `serve` alone: without Redis it works on documents itself".into()
        ]));
    }
    let stop = on_signals()?;
    let parts = PipelineHandles::open(config)?;
    if parts.wait_for_queue(&stop).await?.is_none() {
        return Ok(ExitCode::SUCCESS); // it was told to stop before the queue answered
    }
    let database = config.collections.database.is_some();
    check_shared_directory((&config.state_dir, database), &*parts.queue).await?;
    let mut registry = Registry::default();
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
    let names: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
    let working = parts.start(config, Some((stages, means)), &stop)?;
    tracing::info!(
        stages = names.join(","),
        concurrency = config.workers.concurrency,
        "working on documents"
    );
    working.wait().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads `chunking,embedding`.
fn stages(text: &str) -> Result<Vec<Stage>, ConfigError> {
    let mut stages = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let known = Stage::ALL.into_iter().find(|stage| stage.as_str() == name);
        let stage = known.ok_or_else(|| {
            let known = Stage::ALL.map(Stage::as_str).join(", ");
            ConfigError(vec![format!("--stages: '{name}' is not a stage; known are {known}")])
        })?;
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    if stages.is_empty() {
        return Err(ConfigError(vec!["--stages: names no stage".into()]));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_once_each() {
        assert_eq!(stages("storage, chunking,storage").unwrap(), [Stage::Storage, Stage::Chunking]);
        assert!(stages("storing").unwrap_err().0[0].contains("known are chunking, embedding, storage"));
        assert!(stages(" ,").is_err());
    }
}
