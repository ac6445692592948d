//! `embeddery embed`: embeds the texts of files without a server. The input is lines, and the output is lines or one array
//! in the same order.
//!
//! Texts are read in batches ([`input`]), and several batches pass through the gateway at the same time ([`embedder`]). Each
//! batch is written ([`output`]) and then recorded in a journal beside the output ([`journal`]) before the next. After an
//! interruption the same command resumes after the last entry, and the finished file is equal to that of an uninterrupted
//! run.

mod embedder;
mod input;
mod journal;
mod output;
mod progress;

use std::{path::Path, process::ExitCode, sync::Arc};

use embeddery_core::{EmbedError, ErrorKind, Retry};
use embeddery_gateway::{ModelSelector, ResolvedModel, Router};
use futures_util::{StreamExt as _, stream};
use prometheus_client::registry::Registry;

use self::{
    embedder::{BatchEmbedder, Row},
    input::{Batch, InputReader},
    journal::Plan,
    output::Output,
    progress::Progress,
};
use super::{ReportedError, signals::on_signals};
use crate::{cli, config::Config, logging, wiring};

/// Exit code: some lines failed.
const SOME_FAILED: u8 = 3;
/// Exit code: ended by a signal; the same command resumes.
const INTERRUPTED: u8 = 130;
/// Maximum batches in flight, so that the engine computes while the output is written.
const MAX_BATCHES_IN_FLIGHT: usize = 4;

pub(crate) fn run(options: &cli::Embed, config: &Config) -> anyhow::Result<ExitCode> {
    logging::start(config.log);
    super::runtime()?.block_on(async {
        let stop = on_signals()?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                if options.output != Path::new("-") {
                    progress::println_stderr("interrupted; the same command resumes from here");
                }
                Ok(ExitCode::from(INTERRUPTED))
            }
            result = embed(options, config) => result,
        }
    })
}

async fn embed(options: &cli::Embed, config: &Config) -> anyhow::Result<ExitCode> {
    output::check(options)?;
    let (router, _) = wiring::router(config, &mut Registry::default())?;
    let model = load_model(&router, options.model.as_deref()).await?;
    let reader = InputReader::open(&options.files, options.input_format)?;
    let stack = router.open(ModelSelector { model: options.model.as_deref(), provider: None }).await?;
    let plan = Plan::new(options, &model, stack.identity(), reader.sources());
    let (mut output, resumed) = Output::open(options, &plan)?;
    let Some(resumed) = resumed else {
        progress::println_stderr(format_args!("{} is complete", options.output.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let progress = Progress::new(reader.total_bytes(), &resumed);
    let embedder = Arc::new(BatchEmbedder::new(router, options, resumed.space.clone()));
    let mut batches = input::read(reader, resumed.position.clone());
    let mut results = stream::poll_fn(move |context| batches.poll_recv(context))
        .map(|batch| embed_batch(&embedder, batch))
        .buffered(MAX_BATCHES_IN_FLIGHT);
    while let Some(result) = results.next().await {
        let (batch, rows) = result?;
        output.write(&batch, &rows)?;
        progress.update(output.entry());
    }
    let entry = output.finish()?;
    progress.finish(&options.output, &entry);
    Ok(if entry.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

/// Embeds a batch in a task, so that the work continues while the batch before it is written.
async fn embed_batch(
    embedder: &Arc<BatchEmbedder>,
    batch: anyhow::Result<Batch>,
) -> anyhow::Result<(Batch, Vec<Row>)> {
    let (batch, embedder) = (batch?, Arc::clone(embedder));
    tokio::spawn(async move {
        let rows = embedder.embed_lines(&batch.lines).await?;
        Ok((batch, rows))
    })
    .await?
}

/// Downloads and loads the model, after which the space of its vectors is known.
async fn load_model(router: &Router, model: Option<&str>) -> anyhow::Result<ResolvedModel> {
    let selector = ModelSelector { model, provider: None };
    let loaded = match router.download(selector).await {
        Ok(_) => router.warm_up(selector).await,
        Err(error) => Err(error),
    };
    loaded.map_err(|error| {
        if needs_operator(&error) { ReportedError(format!("--model: {error}")).into() } else { error.into() }
    })
}

/// Whether the command cannot succeed until the command line or the configuration is changed.
fn needs_operator(error: &EmbedError) -> bool {
    match error.kind {
        ErrorKind::ModelNotFound
        | ErrorKind::Forbidden
        | ErrorKind::UpstreamAuth
        | ErrorKind::ModelUnusable => true,
        ErrorKind::InvalidRequest | ErrorKind::Unavailable => error.retry == Retry::Never,
        _ => false,
    }
}
