//! `embeddery embed`: many texts become vectors without a server. Lines in, lines or one array out, in order.
//!
//! Texts are read in batches ([`input`]), several batches are on their way through the gateway at once
//! ([`embedder`]), and each is written ([`output`]) and then entered in a journal beside the output ([`journal`])
//! before the next. Whatever ends the process, the same command goes on after the last entry, and the finished
//! file is the one that an undisturbed run would have made.

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

/// Some lines have no vector; the others have.
const SOME_FAILED: u8 = 3;
/// Ended by a signal; the same command goes on.
const INTERRUPTED: u8 = 130;
/// Batches on their way at once: the engine takes the next when it has done one, and so never waits for the disk.
const ON_THEIR_WAY: usize = 4;

pub(crate) fn run(options: &cli::Embed, config: &Config) -> anyhow::Result<ExitCode> {
    logging::start(config.log);
    super::runtime()?.block_on(async {
        let stop = on_signals()?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                if options.output != Path::new("-") {
                    progress::say("interrupted; the same command goes on from here");
                }
                Ok(ExitCode::from(INTERRUPTED))
            }
            ended = embed(options, config) => ended,
        }
    })
}

async fn embed(options: &cli::Embed, config: &Config) -> anyhow::Result<ExitCode> {
    output::check(options)?;
    let (router, _) = wiring::router(config, &mut Registry::default())?;
    let model = ready(&router, options.model.as_deref()).await?;
    let lines = InputReader::open(&options.files, options.input_format)?;
    let stack = router.open(ModelSelector { model: options.model.as_deref(), provider: None }).await?;
    let plan = Plan::new(options, &model, stack.identity(), lines.sources());
    let (mut output, start) = Output::open(options, &plan)?;
    let Some(start) = start else {
        progress::say(format_args!("{} is complete", options.output.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let progress = Progress::new(lines.total_bytes(), &start);
    let asker = Arc::new(BatchEmbedder::new(router, options, start.space.clone()));
    let mut batches = input::read(lines, start.place.clone());
    let mut answers = stream::poll_fn(move |context| batches.poll_recv(context))
        .map(|batch| answered(&asker, batch))
        .buffered(ON_THEIR_WAY);
    while let Some(answer) = answers.next().await {
        let (batch, rows) = answer?;
        output.write(&batch, &rows)?;
        progress.at(output.entry());
    }
    let entry = output.finish()?;
    progress.end(&options.output, &entry);
    Ok(if entry.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

/// A batch with what came of each of its lines. The work is a task of its own, so that it goes on while the batch
/// before it is being written.
async fn answered(
    asker: &Arc<BatchEmbedder>,
    batch: anyhow::Result<Batch>,
) -> anyhow::Result<(Batch, Vec<Row>)> {
    let (batch, asker) = (batch?, Arc::clone(asker));
    tokio::spawn(async move {
        let rows = asker.rows(&batch.lines).await?;
        Ok((batch, rows))
    })
    .await?
}

/// Brings the model here and loads it, so that it is known which vectors its own are.
async fn ready(router: &Router, model: Option<&str>) -> anyhow::Result<ResolvedModel> {
    let selector = ModelSelector { model, provider: None };
    let loaded = match router.download(selector).await {
        Ok(_) => router.warm_up(selector).await,
        Err(error) => Err(error),
    };
    loaded.map_err(|error| {
        if refused(&error) { ReportedError(format!("--model: {error}")).into() } else { error.into() }
    })
}

/// Whether somebody must change the configuration or the command before this can work.
fn refused(error: &EmbedError) -> bool {
    match error.kind {
        ErrorKind::ModelNotFound
        | ErrorKind::Forbidden
        | ErrorKind::UpstreamAuth
        | ErrorKind::ModelUnusable => true,
        ErrorKind::InvalidRequest | ErrorKind::Unavailable => error.retry == Retry::Never,
        _ => false,
    }
}
