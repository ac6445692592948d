//! The first stage: a text becomes spans. Each document is cut on a thread of its own, so that a text which takes
//! long, or finds a defect, is alone with it.

use std::{collections::HashMap, sync::Arc};

use embeddery_chunk::{ChunkConfig, ChunkConfigError, Unit};
use embeddery_core::{EmbedError, Embedder, TokenCount};
use embeddery_store::{DocumentChunk, TextSpan};
use futures_util::future::join_all;

use super::{
    Item, StageContext, StageFailure, StageResult,
    failure::{FailureScope, code, of_model},
    persist_results, reason, selector,
};
use crate::{ChunkSpan, Chunking, JobSpec, Stage};

pub(super) async fn run(tools: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let models = open(tools, items).await;
    let cut = items.iter().map(|item| spans(tools, item, models.get(&key(&item.work.plan))));
    let cut = join_all(cut).await.into_iter().map(|cut| cut.map_err(StageResult::Trouble)).collect();
    persist_results(Stage::Chunking, items, cut, async |results| tools.jobs.put_chunks(results).await).await
}

/// A plan's way to cut.
pub fn rule(chunking: &Chunking) -> Result<ChunkConfig, ChunkConfigError> {
    let Chunking { method, size, overlap, unit } = chunking;
    ChunkConfig::new(method.parse()?, Some(*size), Some(*overlap), Some(unit.parse()?))
}

/// Cuts a text by a rule, measured by the model that will read the chunks where sizes are tokens. Takes its time:
/// not for an async thread.
pub fn cut(text: &str, rule: ChunkConfig, model: Option<&dyn Embedder>) -> Vec<ChunkSpan> {
    let count = |piece: &str| match model.map(|model| model.count_tokens(piece)) {
        Some(TokenCount::Exact(tokens) | TokenCount::Estimate(tokens)) => tokens,
        None => 0,
    };
    let special = count("");
    let most = model.and_then(|model| model.model().max_tokens);
    let rule = most.map_or(rule, |most| rule.clamp_to_model(most.get().saturating_sub(special)));
    let chunks = embeddery_chunk::chunk(text, &rule, &count).into_iter();
    chunks
        .map(|chunk| ChunkSpan {
            bytes: chunk.bytes.start as u64..chunk.bytes.end as u64,
            characters: chunk.characters.start as u64..chunk.characters.end as u64,
            headings: chunk.headings,
        })
        .collect()
}

/// The parts of a text, as the store takes them; `None` when the spans are of another text.
pub fn parts(text: &str, spans: &[ChunkSpan]) -> Option<Vec<DocumentChunk>> {
    let part = |span: &ChunkSpan| {
        let (bytes, characters) = (&span.bytes, &span.characters);
        let place = usize::try_from(bytes.start).ok()?..usize::try_from(bytes.end).ok()?;
        let at = TextSpan { bytes: (bytes.start, bytes.end), characters: (characters.start, characters.end) };
        Some(DocumentChunk {
            text: text.get(place)?.to_owned(),
            span: at,
            headings: span.headings.clone(),
            vector: None,
        })
    };
    spans.iter().map(part).collect()
}

type Opened = Result<Arc<dyn Embedder>, EmbedError>;

/// The models that count tokens for these documents, each opened once.
async fn open(tools: &StageContext, items: &[Item]) -> HashMap<(String, String), Opened> {
    let mut models = HashMap::new();
    for item in items {
        let plan = &item.work.plan;
        if counts_tokens(plan) && !models.contains_key(&key(plan)) {
            models.insert(key(plan), tools.router.open(selector(plan)).await);
        }
    }
    models
}

fn counts_tokens(plan: &JobSpec) -> bool {
    rule(&plan.chunking).is_ok_and(|rule| rule.unit() == Unit::Tokens)
}

fn key(plan: &JobSpec) -> (String, String) {
    (plan.provider.clone(), plan.model.clone())
}

async fn spans(
    tools: &StageContext,
    item: &Item,
    model: Option<&Opened>,
) -> Result<Vec<ChunkSpan>, StageFailure> {
    let rule = rule(&item.work.plan.chunking)
        .map_err(|error| StageFailure::failed("invalid_chunking", format!("chunking: {error}")))?;
    let model = match model {
        Some(Ok(model)) => Some(Arc::clone(model)),
        Some(Err(error)) => return Err(not_opened(tools, item, error)),
        None => None,
    };
    let (work, rule) =
        (Arc::clone(&item.work), rule.with_content_type(item.work.document.content_type.as_deref()));
    let cutting = tokio::task::spawn_blocking(move || cut(&work.document.text, rule, model.as_deref()));
    match tokio::time::timeout(tools.patience, cutting).await {
        Ok(Ok(spans)) if spans.is_empty() => {
            Err(StageFailure::failed("empty_document", "the text has nothing but white space"))
        }
        Ok(Ok(spans)) => Ok(spans),
        Ok(Err(_)) => Err(StageFailure::again("internal", "cutting the text failed; the log knows more")),
        Err(_) => {
            let message = format!("cutting the text took more than {} s", tools.patience.as_secs());
            Err(StageFailure::again("timeout", message))
        }
    }
}

/// A tokenizer that is not here yet is waited for like the model itself.
fn not_opened(tools: &StageContext, item: &Item, error: &EmbedError) -> StageFailure {
    match FailureScope::of(error) {
        FailureScope::Provider(pause) => {
            tools.lanes.pause(&item.work.plan, reason(code(error), error.message.clone()), pause)
        }
        FailureScope::Model => of_model(error),
        FailureScope::Texts | FailureScope::Unclear => {
            StageFailure::again(code(error), error.message.clone())
        }
    }
}
