//! `embeddery worker`: processes the documents of jobs in the given stages, until a signal.

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
    stores, wiring,
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
            "REDIS_URL: is not set; workers take documents from Redis. Set it here and for `serve`, or run only `serve`: without Redis it processes documents itself".into()
        ]));
    }
    let stop = on_signals()?;
    let pipeline = PipelineHandles::open(config)?;
    if pipeline.wait_for_queue(&stop).await?.is_none() {
        return Ok(ExitCode::SUCCESS); // stopped before the queue was reachable
    }
    let database = config.collections.database.is_some();
    check_shared_directory((&config.state_dir, database), &*pipeline.queue).await?;
    let mut registry = Registry::default();
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
    let names: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
    let work = pipeline.start(config, Some((stages, deps)), &stop)?;
    tracing::info!(
        stages = names.join(","),
        concurrency = config.workers.concurrency,
        "processing documents"
    );
    work.wait().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Parses a list such as `chunking,embedding`.
fn stages(text: &str) -> Result<Vec<Stage>, ConfigError> {
    let mut stages = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let known = Stage::ALL.into_iter().find(|stage| stage.as_str() == name);
        let stage = known.ok_or_else(|| {
            let known = Stage::ALL.map(Stage::as_str).join(", ");
            ConfigError(vec![format!("--stages: '{name}' is unknown; write {known}")])
        })?;
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    if stages.is_empty() {
        return Err(ConfigError(vec!["--stages: is empty; name at least one stage".into()]));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_parsed_once() {
        assert_eq!(stages("storage, chunking,storage").unwrap(), [Stage::Storage, Stage::Chunking]);
        assert!(stages("storing").unwrap_err().0[0].contains("write chunking, embedding, storage"));
        assert!(stages(" ,").is_err());
    }
}
