//! The second stage: chunks that have no vector in the collection are embedded. The chunks of all documents of a batch
//! share calls of a model; a call that fails because of one text is halved until that text is alone.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use embeddery_core::{EmbedError, Embeddings, ErrorKind, Retry};
use embeddery_gateway::BatchBisector;
use embeddery_ingest::{Lookup, MAX_TEXTS_PER_CALL, to_chunks};
use embeddery_store::{CheckedDocument, CollectionRef, Document, StoreError};
use futures_util::future::join_all;

use super::{
    Item, StageContext, StageFailure, StageResult,
    embed_call::{self, CallError, EmbedCall},
    failure::error_code,
    persist_results, reason,
};
use crate::{ChunkSpan, NewDocument, Stage, Vectors};

/// Maximum bytes of the texts of one call. A cancelled job is noticed between two calls.
const MAX_BYTES_PER_CALL: usize = 256 << 10;

pub(super) async fn run(context: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let existing = look_up(context, items).await;
    let mut requests = Vec::new();
    for (item, existing) in items.iter().zip(&existing) {
        let Ok(existing) = existing else { continue };
        let missing = existing.stored.iter().enumerate().filter(|(_, stored)| !**stored);
        requests.push(ChunksToEmbed {
            item,
            dimensions: dimensions(existing, item),
            chunks: missing.map(|(chunk, _)| chunk).collect(),
        });
    }
    let mut embedded = embed_chunks(context, &requests).await.into_iter();
    let results = items.iter().zip(existing).map(|(item, existing)| {
        let existing = existing?;
        to_document_vectors(item, &existing, &embedded.next().unwrap_or_else(|| Ok(Vec::new()))?)
    });
    let results =
        results.map(|vectors: Result<_, StageFailure>| vectors.map_err(StageResult::from)).collect();
    persist_results(Stage::Embedding, items, results, async |results| context.jobs.put_vectors(results).await)
        .await
}

/// What a collection has of one document.
struct Existing {
    lookup: Arc<Lookup>,
    /// For each chunk, whether its vector is stored.
    stored: Vec<bool>,
}

/// The length of the vectors to request; `None` for the model's own. A collection that exists determines it.
fn dimensions(existing: &Existing, item: &Item) -> Option<NonZeroUsize> {
    match &existing.lookup.binding {
        Some(binding) if binding.custom_dimensions => NonZeroUsize::new(binding.dim),
        Some(_) => None,
        None => item.spec().dimensions.and_then(NonZeroUsize::new),
    }
}

/// Looks documents up, all documents of a collection in one query.
async fn look_up(context: &StageContext, items: &[Item]) -> Vec<Result<Existing, StageFailure>> {
    let mut groups: BTreeMap<_, (Vec<usize>, Vec<CheckedDocument>)> = BTreeMap::new();
    let mut results: Vec<Result<Existing, StageFailure>> = items
        .iter()
        .map(|_| Err(StageFailure::retry("internal", "the document was not looked up")))
        .collect();
    for (index, item) in items.iter().enumerate() {
        // A document that waits for its provider is not looked up each time.
        if let Some(deferral) = context.paused_providers.deferral(item.spec()) {
            results[index] = Err(deferral);
            continue;
        }
        match document(item) {
            Ok(document) => {
                let key: (&str, &str) = (&item.work.tenant, &item.spec().collection);
                let (indices, documents) = groups.entry(key).or_default();
                indices.push(index);
                documents.push(document);
            }
            Err(failure) => results[index] = Err(failure),
        }
    }
    let lookups = join_all(groups.into_values().map(|(indices, documents)| async move {
        let item = &items[indices[0]];
        let tenant = item.user().directory_name();
        let collection = CollectionRef { tenant: &tenant, collection: &item.spec().collection };
        (indices, context.ingest.look_up(collection, &documents).await)
    }))
    .await;
    for (indices, lookup) in lookups {
        match lookup {
            Ok(mut lookup) => {
                let stored = std::mem::take(&mut lookup.stored);
                let lookup = Arc::new(lookup);
                for (index, stored) in indices.into_iter().zip(stored) {
                    results[index] = Ok(Existing { lookup: Arc::clone(&lookup), stored });
                }
            }
            Err(error) => {
                let failure = StageFailure::from_store_error(&error);
                indices.into_iter().for_each(|index| results[index] = Err(failure.clone()));
            }
        }
    }
    results
}

/// A document with its chunks and without vectors, in the store's form.
pub(super) fn document(item: &Item) -> Result<CheckedDocument, StageFailure> {
    let NewDocument { id, text, metadata, .. } = &item.work.document;
    let chunks = to_chunks(text, spans(item)?).ok_or_else(span_mismatch)?;
    let (id, metadata) = (id.clone(), metadata.clone());
    let document = Document { id, metadata, chunks, submission: Some(item.task.job.0) };
    document.check().map_err(|error| StageFailure::failed("invalid_value", error.message))
}

fn span_mismatch() -> StageFailure {
    StageFailure::retry("internal", "the chunks of the document do not match its text")
}

fn spans(item: &Item) -> Result<&[ChunkSpan], StageFailure> {
    let missing =
        || StageFailure::retry("internal", "the chunks of the document are missing in the job store");
    item.work.chunks.as_deref().ok_or_else(missing)
}

fn chunk_text<'a>(item: &'a Item, span: &ChunkSpan) -> Result<&'a str, StageFailure> {
    let range = usize::try_from(span.bytes.start).ok().zip(usize::try_from(span.bytes.end).ok());
    let text = range.and_then(|(start, end)| item.work.document.text.get(start..end));
    text.ok_or_else(span_mismatch)
}

/// Chunks of one document that need a vector.
pub(super) struct ChunksToEmbed<'a> {
    pub(super) item: &'a Item,
    pub(super) dimensions: Option<NonZeroUsize>,
    /// Indices of the chunks.
    pub(super) chunks: Vec<usize>,
}

/// A vector: a row of the response of a call.
pub(super) type EmbeddedRow = (Arc<Embeddings>, usize);

/// One chunk of a call.
struct PendingChunk {
    /// The index of its document among the requests.
    owner: usize,
    /// Its position among the chunks that the document requests.
    position: usize,
    text: Arc<str>,
}

/// The vectors of each request, or the failure of its document.
pub(super) async fn embed_chunks(
    context: &StageContext,
    requests: &[ChunksToEmbed<'_>],
) -> Vec<Result<Vec<EmbeddedRow>, StageFailure>> {
    // Texts of several tenants do not share a call: caches, accounts and turns are a tenant's own.
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (owner, request) in requests.iter().enumerate() {
        let spec = request.item.spec();
        let key = (&request.item.work.tenant, &spec.provider, &spec.model, request.dimensions);
        groups.entry(key).or_default().push(owner);
    }
    let embedded = join_all(groups.into_values().map(|owners| embed_group(context, requests, owners)))
        .await
        .into_iter()
        .flatten();
    let mut results: Vec<_> = requests.iter().map(|_| Ok(Vec::new())).collect();
    embedded.for_each(|(owner, result)| results[owner] = result);
    results
}

type GroupResult = Vec<(usize, Result<Vec<EmbeddedRow>, StageFailure>)>;

/// Embeds the chunks of documents that may share calls.
async fn embed_group(
    context: &StageContext,
    requests: &[ChunksToEmbed<'_>],
    owners: Vec<usize>,
) -> GroupResult {
    let mut results: BTreeMap<usize, Result<Vec<Option<EmbeddedRow>>, StageFailure>> = BTreeMap::new();
    let mut pieces = Vec::new();
    for owner in owners {
        match texts(&requests[owner]) {
            Ok(texts) => {
                results.insert(owner, Ok(vec![None; texts.len()]));
                let texts = texts.into_iter().enumerate();
                pieces.extend(texts.map(|(position, text)| PendingChunk { owner, position, text }));
            }
            Err(failure) => drop(results.insert(owner, Err(failure))),
        }
    }
    let mut waiting = BatchBisector::new(calls(pieces));
    while let Some(mut call) = waiting.next_batch() {
        // A document that failed by another chunk, or whose job was cancelled, is not billed further.
        call.retain(|piece| results[&piece.owner].is_ok() && !requests[piece.owner].item.is_abandoned());
        let Some(first) = call.first() else { continue };
        let ChunksToEmbed { item, dimensions, .. } = &requests[first.owner];
        let request_id: Arc<str> = item.task.job.to_string().into();
        let embed_call = EmbedCall {
            tenant: &item.work.tenant,
            spec: item.spec(),
            dimensions: *dimensions,
            request_id: &request_id,
        };
        let texts: Vec<Arc<str>> = call.iter().map(|piece| Arc::clone(&piece.text)).collect();
        let response = match context.paused_providers.deferral(embed_call.spec) {
            Some(deferral) => Err(CallError::All(deferral)),
            None => embed_call::embed(context, &embed_call, &texts).await,
        };
        match response {
            Ok(embeddings) => {
                let embeddings = Arc::new(embeddings);
                for (row, piece) in call.iter().enumerate() {
                    if let Some(Ok(rows)) = results.get_mut(&piece.owner) {
                        rows[piece.position] = Some((Arc::clone(&embeddings), row));
                    }
                }
            }
            Err(CallError::All(failure)) => {
                for piece in call.into_iter().chain(waiting.drain()) {
                    if let Some(result @ Ok(_)) = results.get_mut(&piece.owner) {
                        *result = Err(failure.clone());
                    }
                }
            }
            Err(CallError::Split(error)) => {
                for (_, piece) in waiting.split_failed(call, &error) {
                    let ChunksToEmbed { item, chunks, .. } = &requests[piece.owner];
                    results.insert(piece.owner, Err(chunk_failure(&error, item, chunks[piece.position])));
                }
            }
        }
    }
    let complete = |rows: Vec<Option<EmbeddedRow>>| {
        let rows: Option<Vec<EmbeddedRow>> = rows.into_iter().collect();
        rows.ok_or_else(|| {
            StageFailure::retry("cancelled", "the job was cancelled, or another worker has the document")
        })
    };
    results.into_iter().map(|(owner, result)| (owner, result.and_then(complete))).collect()
}

fn texts(request: &ChunksToEmbed<'_>) -> Result<Vec<Arc<str>>, StageFailure> {
    let spans = spans(request.item)?;
    let text = |&chunk: &usize| {
        let missing = || StageFailure::retry("internal", "a chunk is missing in the job store");
        Ok(chunk_text(request.item, spans.get(chunk).ok_or_else(missing)?)?.into())
    };
    request.chunks.iter().map(text).collect()
}

/// Divides pieces, in their order, into calls within the limits of texts and bytes.
fn calls(pieces: Vec<PendingChunk>) -> Vec<Vec<PendingChunk>> {
    let mut calls: Vec<Vec<PendingChunk>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        bytes += piece.text.len();
        match calls.last_mut() {
            Some(call) if call.len() < MAX_TEXTS_PER_CALL && bytes <= MAX_BYTES_PER_CALL => call.push(piece),
            _ => {
                bytes = piece.text.len();
                calls.push(vec![piece]);
            }
        }
    }
    calls
}

/// The failure of a document by one chunk. The message names the chunk, so that the author can find it.
fn chunk_failure(error: &EmbedError, item: &Item, chunk: usize) -> StageFailure {
    let characters =
        item.work.chunks.as_ref().and_then(|chunks| chunks.get(chunk)).map(|span| &span.characters);
    let range = characters.map_or_else(String::new, |at| format!(" (characters {} to {})", at.start, at.end));
    let message = format!("chunk {chunk}{range}: {}", error.message);
    let after = match error.retry {
        Retry::After(after) => Some(after),
        Retry::Backoff | Retry::Never => None,
    };
    match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::InputTooLong | ErrorKind::BatchTooLarge => {
            StageFailure::failed(error_code(error), message)
        }
        _ => StageFailure::Retry { reason: reason(error_code(error), message), after },
    }
}

/// The vectors of a document in the job store's form. All are of one space: the collection's where it exists.
fn to_document_vectors(
    item: &Item,
    existing: &Existing,
    embedded: &[EmbeddedRow],
) -> Result<Vectors, StageFailure> {
    let bound = existing.lookup.binding.as_ref().map(|binding| (&binding.space, binding.dim));
    let returned = embedded.first().map(|(embeddings, _)| (&embeddings.space, embeddings.dim));
    let Some((space, dim)) = bound.or(returned) else {
        return Err(StageFailure::retry("internal", "a document without new vectors has no collection"));
    };
    let differs = |(embeddings, _): &&EmbeddedRow| embeddings.space != *space || embeddings.dim != dim;
    if let Some((other, _)) = embedded.iter().find(differs) {
        let error = StoreError::space_mismatch(&item.spec().collection, space, &other.space);
        return Err(StageFailure::from_store_error(&error));
    }
    let mut rows = Vec::with_capacity(existing.stored.len());
    let mut data = Vec::with_capacity(embedded.len() * dim);
    let mut embedded = embedded.iter();
    for stored in &existing.stored {
        let new = if *stored { None } else { embedded.next() };
        rows.push(new.as_ref().and_then(|_| u32::try_from(data.len() / dim.max(1)).ok()));
        if let Some((embeddings, row)) = new {
            data.extend_from_slice(&embeddings.data[row * dim..(row + 1) * dim]);
        }
    }
    Ok(Vectors { space: space.clone(), dim, rows, data })
}
