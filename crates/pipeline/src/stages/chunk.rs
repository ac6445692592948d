//! The first stage: text to chunks. Each document is split on a thread of its own, so that a text that takes long, or
//! meets a defect, does not affect the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use embeddery_chunk::{ChunkConfig, ChunkConfigError};
use embeddery_core::EmbedError;
use embeddery_ingest::{ModelReader, SplitTextError, run_stoppable, split};
use futures_util::future::join_all;

use super::{
    Item, StageContext, StageFailure, StageResult,
    failure::{FailureScope, error_code},
    persist_results, reason, selector,
};
use crate::{ChunkSpan, Chunking, JobSpec, Stage};

pub(super) async fn run(context: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let results = chunk_all(context, items).await.into_iter();
    let results = results.map(|spans| spans.map_err(StageResult::from)).collect();
    persist_results(Stage::Chunking, items, results, async |results| context.jobs.put_chunks(results).await)
        .await
}

/// Splits documents, in their order. A local model stays loaded while its documents are split. So each model is opened
/// and released by itself: a model that waits for memory does not hold another one, and delays only its own documents.
async fn chunk_all(context: &StageContext, items: &[Item]) -> Vec<Result<Vec<ChunkSpan>, StageFailure>> {
    let mut by_model: BTreeMap<(&str, &str), Vec<(usize, &Item)>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let spec = item.spec();
        by_model.entry((&spec.provider, &spec.model)).or_default().push((index, item));
    }
    let chunked = by_model.into_values().map(|items| async move {
        let reader = open_reader(context, items[0].1.spec()).await;
        let reader = &reader;
        join_all(
            items.into_iter().map(|(index, item)| async move { (index, chunk(context, item, reader).await) }),
        )
        .await
    });
    let mut chunked: Vec<_> = join_all(chunked).await.into_iter().flatten().collect();
    chunked.sort_unstable_by_key(|(index, _)| *index);
    chunked.into_iter().map(|(_, spans)| spans).collect()
}

fn config(chunking: &Chunking) -> Result<ChunkConfig, ChunkConfigError> {
    let Chunking { method, size, overlap, unit } = chunking;
    ChunkConfig::new(method.parse()?, Some(*size), Some(*overlap), Some(unit.parse()?))
}

type Opened = Result<ModelReader, EmbedError>;

async fn open_reader(context: &StageContext, spec: &JobSpec) -> Opened {
    let opening = async { ModelReader::open(&*context.ingest.router.open(selector(spec)).await?).await };
    let timed_out = || EmbedError::timeout("loading the model took too long");
    tokio::time::timeout(context.timeout, opening).await.unwrap_or_else(|_| Err(timed_out()))
}

async fn chunk(context: &StageContext, item: &Item, reader: &Opened) -> Result<Vec<ChunkSpan>, StageFailure> {
    let config = config(&item.spec().chunking)
        .map_err(|error| StageFailure::failed("invalid_chunking", format!("chunking: {error}")))?;
    let reader = reader.clone().map_err(|error| tokenizer_failure(context, item, &error))?;
    let work = Arc::clone(&item.work);
    let config = config.with_content_type(work.document.content_type.as_deref());
    let (abandoned, deadline) = (Arc::clone(&item.abandoned), Instant::now() + context.timeout);
    let is_unneeded = move || abandoned.load(Relaxed) || Instant::now() >= deadline;
    let splitting = run_stoppable(is_unneeded, move |stop| split(&work.document.text, config, &reader, stop));
    match tokio::time::timeout(context.timeout, splitting).await {
        Ok(Ok(Ok(spans))) if spans.is_empty() => {
            Err(StageFailure::failed("empty_document", "the text consists of white space"))
        }
        Ok(Ok(Ok(spans))) => Ok(spans),
        Ok(Ok(Err(SplitTextError::TooLong(reason)))) => {
            let message =
                format!("the document cannot be one chunk: {reason}; send it with another chunking.method");
            Err(StageFailure::failed("input_too_long", message))
        }
        Ok(Ok(Err(SplitTextError::Stopped))) if item.is_abandoned() => {
            Err(StageFailure::retry("cancelled", "the job was cancelled, or another worker has the document"))
        }
        Ok(Err(_)) => {
            Err(StageFailure::retry("internal", "splitting the text failed; see the log of the worker"))
        }
        Ok(Ok(Err(SplitTextError::Stopped))) | Err(_) => {
            let message = format!("splitting the text took more than {} s", context.timeout.as_secs());
            Err(StageFailure::retry("timeout", message))
        }
    }
}

/// A tokenizer that cannot be opened is treated like its model.
fn tokenizer_failure(context: &StageContext, item: &Item, error: &EmbedError) -> StageFailure {
    match FailureScope::from_error(error) {
        FailureScope::Provider(pause) => {
            let reason = reason(error_code(error), error.message.clone());
            context.paused_providers.pause(item.spec(), reason, pause)
        }
        FailureScope::Model => StageFailure::from_model_error(error),
        FailureScope::Texts | FailureScope::Unclear => {
            StageFailure::retry(error_code(error), error.message.clone())
        }
    }
}
