//! The first stage: text to chunks. Each document is split on a thread of its own, so that a text that takes long, or
//! meets a defect, does not affect the others.

use std::{collections::HashMap, sync::Arc};

use embeddery_chunk::{ChunkConfig, ChunkConfigError, Unit};
use embeddery_core::{EmbedError, Embedder};
use embeddery_ingest::split;
use futures_util::future::join_all;

use super::{
    Item, StageContext, StageFailure, StageResult,
    failure::{FailureScope, error_code},
    persist_results, reason, selector,
};
use crate::{ChunkSpan, Chunking, JobSpec, Stage};

pub(super) async fn run(context: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let models = open_models(context, items).await;
    let chunked =
        join_all(items.iter().map(|item| chunk(context, item, models.get(&model_key(item.spec()))))).await;
    let results = chunked.into_iter().map(|spans| spans.map_err(StageResult::from)).collect();
    persist_results(Stage::Chunking, items, results, async |results| context.jobs.put_chunks(results).await)
        .await
}

fn config(chunking: &Chunking) -> Result<ChunkConfig, ChunkConfigError> {
    let Chunking { method, size, overlap, unit } = chunking;
    ChunkConfig::new(method.parse()?, Some(*size), Some(*overlap), Some(unit.parse()?))
}

type Opened = Result<Arc<dyn Embedder>, EmbedError>;

/// The models that count tokens for these documents, each opened once.
async fn open_models(context: &StageContext, items: &[Item]) -> HashMap<(String, String), Opened> {
    let mut models = HashMap::new();
    for item in items {
        let spec = item.spec();
        if counts_tokens(spec) && !models.contains_key(&model_key(spec)) {
            models.insert(model_key(spec), context.ingest.router.open(selector(spec)).await);
        }
    }
    models
}

fn counts_tokens(spec: &JobSpec) -> bool {
    config(&spec.chunking).is_ok_and(|config| config.unit() == Unit::Tokens)
}

fn model_key(spec: &JobSpec) -> (String, String) {
    (spec.provider.clone(), spec.model.clone())
}

async fn chunk(
    context: &StageContext,
    item: &Item,
    model: Option<&Opened>,
) -> Result<Vec<ChunkSpan>, StageFailure> {
    let config = config(&item.spec().chunking)
        .map_err(|error| StageFailure::failed("invalid_chunking", format!("chunking: {error}")))?;
    let model = match model {
        Some(Ok(model)) => Some(Arc::clone(model)),
        Some(Err(error)) => return Err(tokenizer_failure(context, item, error)),
        None => None,
    };
    let work = Arc::clone(&item.work);
    let config = config.with_content_type(work.document.content_type.as_deref());
    let splitting = tokio::task::spawn_blocking(move || split(&work.document.text, config, model.as_deref()));
    match tokio::time::timeout(context.timeout, splitting).await {
        Ok(Ok(spans)) if spans.is_empty() => {
            Err(StageFailure::failed("empty_document", "the text consists of white space"))
        }
        Ok(Ok(spans)) => Ok(spans),
        Ok(Err(_)) => {
            Err(StageFailure::retry("internal", "splitting the text failed; see the log of the worker"))
        }
        Err(_) => {
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
