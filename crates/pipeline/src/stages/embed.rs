//! The second stage: chunks that the collection has no vector of become vectors. Chunks of all documents that came
//! together go to a model together; a call that fails over one text is halved until that text stands alone.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use embeddery_core::{EmbedError, Embeddings, ErrorKind, Retry};
use embeddery_gateway::BatchBisector;
use embeddery_store::{CollectionRef, Document, ModelBinding, StoreError, StoreErrorKind};
use futures_util::future::join_all;

use super::{
    Item, StageContext, StageFailure, StageResult,
    billed_embed::{self, CallError, EmbedCall},
    chunk::parts,
    failure::code,
    persist_results, reason, tenant_dir,
};
use crate::{ChunkSpan, NewDocument, Stage, Vectors};

/// Texts of one call: enough to keep a model busy, few enough that nobody waits long behind them.
const TEXTS: usize = 256;
/// Bytes of one call's texts: between two calls a cancelled job is noticed.
const BYTES: usize = 256 << 10;

pub(super) async fn run(tools: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let known = fetch_existing(tools, items).await;
    let mut wanted = Vec::new();
    for (item, known) in items.iter().zip(&known) {
        let Ok(known) = known else { continue };
        let missing = known.stored.iter().enumerate().filter(|(_, stored)| !**stored);
        wanted.push(Wanted {
            item,
            dimensions: known.dimensions(item),
            chunks: missing.map(|(chunk, _)| chunk).collect(),
        });
    }
    let mut made = vectors(tools, &wanted).await.into_iter();
    let laid_out = items.iter().zip(known).map(|(item, known)| {
        let known = known?;
        to_document_vectors(item, &known, &made.next().unwrap_or_else(|| Ok(Vec::new()))?)
    });
    let laid_out = laid_out.map(|vectors: Result<_, StageFailure>| vectors.map_err(StageResult::Trouble));
    let laid_out = laid_out.collect();
    persist_results(Stage::Embedding, items, laid_out, async |results| tools.jobs.put_vectors(results).await)
        .await
}

/// What the collection knows of a document.
struct Known {
    binding: Option<ModelBinding>,
    /// For each chunk, whether its vector is there.
    stored: Vec<bool>,
}

impl Known {
    /// The length to ask for: the collection's where there is one.
    fn dimensions(&self, item: &Item) -> Option<NonZeroUsize> {
        match &self.binding {
            Some(binding) if binding.custom_dimensions => NonZeroUsize::new(binding.dim),
            Some(_) => None,
            None => item.work.plan.dimensions.and_then(NonZeroUsize::new),
        }
    }
}

/// Asks each collection once for all its documents.
async fn fetch_existing(tools: &StageContext, items: &[Item]) -> Vec<Result<Known, StageFailure>> {
    let mut groups: BTreeMap<_, (Vec<usize>, Vec<Document>)> = BTreeMap::new();
    let mut known: Vec<Result<Known, StageFailure>> =
        items.iter().map(|_| Err(StageFailure::again("internal", "nobody looked"))).collect();
    for (index, item) in items.iter().enumerate() {
        // What waits for its provider costs nothing meanwhile.
        if let Some(trouble) = tools.lanes.blocked(&item.work.plan) {
            known[index] = Err(trouble);
            continue;
        }
        match document(item) {
            Ok(document) => {
                let place: (&str, &str) = (&item.work.tenant, &item.work.plan.collection);
                let (members, documents) = groups.entry(place).or_default();
                members.push(index);
                documents.push(document);
            }
            Err(trouble) => known[index] = Err(trouble),
        }
    }
    let looked = join_all(groups.into_iter().map(|(place, (members, documents))| async move {
        let answer = fetch_collection(tools, place, &documents).await;
        (members, answer)
    }))
    .await;
    for (members, answer) in looked {
        match answer {
            Ok((binding, stored)) => {
                for (index, stored) in members.into_iter().zip(stored) {
                    known[index] = Ok(Known { binding: binding.clone(), stored });
                }
            }
            Err(trouble) => members.into_iter().for_each(|index| known[index] = Err(trouble.clone())),
        }
    }
    known
}

async fn fetch_collection(
    tools: &StageContext,
    (tenant, collection): (&str, &str),
    documents: &[Document],
) -> Result<(Option<ModelBinding>, Vec<Vec<bool>>), StageFailure> {
    let tenant = tenant_dir(tenant);
    let place = CollectionRef { tenant: &tenant, collection };
    let nothing = || (None, documents.iter().map(|document| vec![false; document.chunks.len()]).collect());
    let found = match tools.store.get(place).await {
        Ok(found) => found,
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(nothing()),
        Err(error) => return Err(StageFailure::of_store(&error)),
    };
    match tools.store.existing_chunks(place, documents).await {
        Ok(stored) => Ok((Some(found.binding), stored)),
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(nothing()),
        Err(error) => Err(StageFailure::of_store(&error)),
    }
}

/// A document with its chunks and without vectors, as the store takes it.
pub(super) fn document(item: &Item) -> Result<Document, StageFailure> {
    let NewDocument { id, text, metadata, .. } = &item.work.document;
    let chunks = parts(text, spans(item)?).ok_or_else(span_mismatch)?;
    Ok(Document { id: id.clone(), metadata: metadata.clone(), chunks, submission: Some(item.task.job.0) })
}

fn span_mismatch() -> StageFailure {
    StageFailure::again("internal", "the document's chunks do not fit its text")
}

fn spans(item: &Item) -> Result<&[ChunkSpan], StageFailure> {
    let lost = || StageFailure::again("internal", "the document's chunks are lost");
    item.work.chunks.as_deref().ok_or_else(lost)
}

fn slice<'a>(item: &'a Item, span: &ChunkSpan) -> Result<&'a str, StageFailure> {
    let place = usize::try_from(span.bytes.start).ok().zip(usize::try_from(span.bytes.end).ok());
    let text = place.and_then(|(start, end)| item.work.document.text.get(start..end));
    text.ok_or_else(span_mismatch)
}

/// Chunks of a document that are to become vectors.
pub(super) struct Wanted<'a> {
    pub(super) item: &'a Item,
    pub(super) dimensions: Option<NonZeroUsize>,
    pub(super) chunks: Vec<usize>,
}

/// A vector: a row of an answer.
pub(super) type EmbeddedRow = (Arc<Embeddings>, usize);

/// One text on its way.
struct PendingChunk {
    /// Whose, by place in `wanted`.
    owner: usize,
    /// Which of the chunks wanted.
    place: usize,
    text: Arc<str>,
}

/// The vectors of what is wanted of each document, or why it has none.
pub(super) async fn vectors(
    tools: &StageContext,
    wanted: &[Wanted<'_>],
) -> Vec<Result<Vec<EmbeddedRow>, StageFailure>> {
    // What one call may carry together: tenants have their own caches, accounts and turns.
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (owner, wanted) in wanted.iter().enumerate() {
        let plan = &wanted.item.work.plan;
        let key = (&wanted.item.work.tenant, &plan.provider, &plan.model, wanted.dimensions);
        groups.entry(key).or_default().push(owner);
    }
    let answered = join_all(groups.into_values().map(|members| group(tools, wanted, members)))
        .await
        .into_iter()
        .flatten();
    let mut all: Vec<_> = wanted.iter().map(|_| Ok(Vec::new())).collect();
    answered.for_each(|(owner, result)| all[owner] = result);
    all
}

type Answered = Vec<(usize, Result<Vec<EmbeddedRow>, StageFailure>)>;

async fn group(tools: &StageContext, wanted: &[Wanted<'_>], members: Vec<usize>) -> Answered {
    let mut results: BTreeMap<usize, Result<Vec<Option<EmbeddedRow>>, StageFailure>> = BTreeMap::new();
    let mut pieces = Vec::new();
    for owner in members {
        match texts(&wanted[owner]) {
            Ok(texts) => {
                results.insert(owner, Ok(vec![None; texts.len()]));
                let texts = texts.into_iter().enumerate();
                pieces.extend(texts.map(|(place, text)| PendingChunk { owner, place, text }));
            }
            Err(trouble) => drop(results.insert(owner, Err(trouble))),
        }
    }
    let mut waiting = BatchBisector::new(calls(pieces));
    while let Some(mut call) = waiting.next_batch() {
        // Nobody pays for a document that has failed by another chunk, or whose job was cancelled.
        call.retain(|piece| results[&piece.owner].is_ok() && !wanted[piece.owner].item.is_dropped());
        let Some(first) = call.first() else { continue };
        let Wanted { item, dimensions, .. } = &wanted[first.owner];
        let request_id: Arc<str> = item.task.job.to_string().into();
        let asking = EmbedCall {
            tenant: &item.work.tenant,
            plan: &item.work.plan,
            dimensions: *dimensions,
            request_id: &request_id,
        };
        let texts: Vec<Arc<str>> = call.iter().map(|piece| Arc::clone(&piece.text)).collect();
        let answer = match tools.lanes.blocked(asking.plan) {
            Some(trouble) => Err(CallError::All(trouble)),
            None => billed_embed::embed(tools, &asking, &texts).await,
        };
        match answer {
            Ok(answer) => {
                let answer = Arc::new(answer);
                for (row, piece) in call.iter().enumerate() {
                    if let Some(Ok(made)) = results.get_mut(&piece.owner) {
                        made[piece.place] = Some((Arc::clone(&answer), row));
                    }
                }
            }
            Err(CallError::All(trouble)) => {
                let rest = waiting.drain();
                for piece in call
                    .into_iter()
                    .chain(rest)
                    .filter(|piece| results[&piece.owner].is_ok())
                    .collect::<Vec<_>>()
                {
                    results.insert(piece.owner, Err(trouble.clone()));
                }
            }
            Err(CallError::Split(error)) => {
                for (_, piece) in waiting.split_failed(call, &error) {
                    let Wanted { item, chunks, .. } = &wanted[piece.owner];
                    results.insert(piece.owner, Err(of_chunk(&error, item, chunks[piece.place])));
                }
            }
        }
    }
    let complete = |made: Vec<Option<EmbeddedRow>>| {
        let made: Option<Vec<EmbeddedRow>> = made.into_iter().collect();
        made.ok_or_else(|| {
            StageFailure::again("cancelled", "the job was cancelled, or another worker has the document")
        })
    };
    results.into_iter().map(|(owner, result)| (owner, result.and_then(complete))).collect()
}

fn texts(wanted: &Wanted<'_>) -> Result<Vec<Arc<str>>, StageFailure> {
    let spans = spans(wanted.item)?;
    let span = |&chunk: &usize| {
        let span = spans.get(chunk).ok_or_else(|| StageFailure::again("internal", "a chunk is lost"))?;
        Ok(slice(wanted.item, span)?.into())
    };
    wanted.chunks.iter().map(span).collect()
}

/// Pieces in their order, as many to a call as it may carry.
fn calls(pieces: Vec<PendingChunk>) -> Vec<Vec<PendingChunk>> {
    let mut calls: Vec<Vec<PendingChunk>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        bytes += piece.text.len();
        match calls.last_mut() {
            Some(call) if call.len() < TEXTS && bytes <= BYTES => call.push(piece),
            _ => {
                bytes = piece.text.len();
                calls.push(vec![piece]);
            }
        }
    }
    calls
}

/// A failure that one chunk has alone; it is named, so that its author can find it.
fn of_chunk(error: &EmbedError, item: &Item, chunk: usize) -> StageFailure {
    let characters =
        item.work.chunks.as_ref().and_then(|chunks| chunks.get(chunk)).map(|span| &span.characters);
    let place = characters.map_or_else(String::new, |at| format!(" (characters {} to {})", at.start, at.end));
    let message = format!("chunk {chunk}{place}: {}", error.message);
    let after = match error.retry {
        Retry::After(after) => Some(after),
        Retry::Backoff | Retry::Never => None,
    };
    match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::InputTooLong | ErrorKind::BatchTooLarge => {
            StageFailure::failed(code(error), message)
        }
        _ => StageFailure::Retry { reason: reason(code(error), message), after },
    }
}

/// A document's vectors as the job store keeps them; all of one space, the collection's where there is one.
fn to_document_vectors(item: &Item, known: &Known, made: &[EmbeddedRow]) -> Result<Vectors, StageFailure> {
    let collection = &item.work.plan.collection;
    let bound = known.binding.as_ref().map(|binding| (&binding.space, binding.dim));
    let answered = made.first().map(|(answer, _)| (&answer.space, answer.dim));
    let Some((space, dim)) = bound.or(answered) else {
        return Err(StageFailure::again("internal", "a document without vectors has no collection"));
    };
    if let Some((other, _)) = made.iter().find(|(answer, _)| answer.space != *space || answer.dim != dim) {
        return Err(StageFailure::of_store(&StoreError::space_mismatch(collection, space, &other.space)));
    }
    let (mut rows, mut data) = (Vec::with_capacity(known.stored.len()), Vec::with_capacity(made.len() * dim));
    let mut made = made.iter();
    for stored in &known.stored {
        let new = if *stored { None } else { made.next() };
        rows.push(new.as_ref().and_then(|_| u32::try_from(data.len() / dim.max(1)).ok()));
        if let Some((answer, row)) = new {
            data.extend_from_slice(&answer.data[row * dim..(row + 1) * dim]);
        }
    }
    Ok(Vectors { space: space.clone(), dim, rows, data })
}
