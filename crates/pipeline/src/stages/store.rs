//! The last stage: documents become searchable. Documents of one collection whose vectors are of one model are written
//! in one step. When that fails, each is written by itself, so that one that cannot be stored does not affect the
//! others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use embeddery_ingest::{MissingChunk, WriteBatch, WriteTarget, check_space};
use embeddery_store::{
    CheckedDocument, CollectionRef, ModelBinding, NewCollection, StoreError, StoreErrorKind,
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Item, StageContext, StageFailure, StageResult,
    embed::{ChunksToEmbed, document, embed_chunks},
    persist_results, reason,
};
use crate::{DocumentOutcome, JobId, Reason, Stage, Vectors};

/// Maximum time that a batch waits for vectors that other writes of a user have reserved. It is short, because the batch has
/// documents of other users.
const MAX_QUOTA_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn run(context: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    // An abandoned document is not stored: its user may have been deleted.
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_abandoned()) {
        let spec = item.spec();
        let vectors = item.work.vectors.as_ref().map(|vectors| (vectors.space.as_str(), vectors.dim));
        let model = (&spec.provider, &spec.model, spec.dimensions, vectors);
        groups.entry((&item.work.tenant, &spec.collection, model)).or_default().push(index);
    }
    let groups = groups.into_values().map(|indices| async move {
        let mut outcomes = Vec::with_capacity(indices.len());
        for round in rounds(items, indices) {
            let batch: Vec<&Item> = round.iter().map(|&index| &items[index]).collect();
            outcomes.extend(round.into_iter().zip(write(context, &batch).await));
        }
        outcomes
    });
    let mut results: Vec<_> = items.iter().map(|_| Err(StageResult::Done)).collect();
    for (index, outcome) in join_all(groups).await.into_iter().flatten() {
        results[index] = outcome.map_err(StageResult::from);
    }
    persist_results(Stage::Storage, items, results, async |ends| context.jobs.finish(ends).await).await
}

/// Divides documents so that no round has two of the same id. Several jobs may submit a document of one id; these are
/// written one after the other.
fn rounds(items: &[Item], indices: Vec<usize>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<(HashSet<&str>, Vec<usize>)> = Vec::new();
    for index in indices {
        let id = items[index].work.document.id.as_str();
        match rounds.iter_mut().find(|(ids, _)| !ids.contains(id)) {
            Some((ids, round)) => {
                ids.insert(id);
                round.push(index);
            }
            None => rounds.push((HashSet::from([id]), vec![index])),
        }
    }
    rounds.into_iter().map(|(_, round)| round).collect()
}

/// Writes documents of one collection, together if possible.
async fn write(context: &StageContext, items: &[&Item]) -> Vec<Result<DocumentOutcome, StageFailure>> {
    let together = match items {
        [_, _, ..] => match store(context, items).await {
            // Each document alone would fail the same.
            Err(deferral @ StageFailure::Defer { .. }) => return vec![Err(deferral); items.len()],
            stored => stored.ok(),
        },
        _ => None,
    };
    let together = together.as_ref();
    join_all(items.iter().map(|item| async move {
        let superseded_by = match together {
            Some(superseded) => superseded.get(&item.work.document.id).copied(),
            None => store(context, &[item]).await?.into_values().next(),
        };
        Ok(match superseded_by {
            Some(submission) => {
                DocumentOutcome::Superseded(superseded_reason(context, item, submission).await)
            }
            None => {
                let chunks = item.work.vectors.as_ref().map_or(0, |vectors| vectors.rows.len() as u64);
                DocumentOutcome::Stored { chunks }
            }
        })
    }))
    .await
}

/// Names the later submission of a document: a job, or an inline request.
async fn superseded_reason(context: &StageContext, item: &Item, submission: Uuid) -> Reason {
    let message = match context.jobs.job(&item.work.tenant, JobId(submission)).await {
        Ok(Some(job)) => format!("superseded by job {}, which was submitted later", job.id),
        _ => "superseded by a later version of the document, or by its deletion".to_owned(),
    };
    reason("superseded", message)
}

/// Documents whose later submission is stored, with that submission.
type Superseded = HashMap<String, Uuid>;

/// Writes documents of one collection with the vectors of the job store. A collection that does not exist is created.
async fn store(context: &StageContext, items: &[&Item]) -> Result<Superseded, StageFailure> {
    let (first, vectors) = (items[0], vectors(items[0])?);
    let documents = items.iter().map(|item| with_vectors(item)).collect::<Result<Vec<_>, _>>()?;
    let (user, spec) = (first.user(), first.spec());
    let tenant = user.directory_name();
    let collection = CollectionRef { tenant: &tenant, collection: &spec.collection };
    let new = NewCollection {
        binding: ModelBinding {
            provider: spec.provider.clone(),
            model: spec.model.clone(),
            space: vectors.space.clone(),
            dim: vectors.dim,
            custom_dimensions: spec.dimensions.is_some(),
        },
        metadata: serde_json::Map::new(),
        submission: documents.iter().filter_map(|document| document.submission).max(),
    };
    if !ensure_collection(context, collection, new).await? {
        return Ok(documents.iter().map(|document| (document.id.clone(), Uuid::nil())).collect());
    }
    let target = WriteTarget {
        user: &user,
        collection: &spec.collection,
        space: &vectors.space,
        max_quota_wait: MAX_QUOTA_WAIT,
        store_timeout: Some(context.timeout),
    };
    // The embedding stage found the chunks without a vector in the collection.
    let is_stored =
        |document: &CheckedDocument| document.chunks.iter().map(|chunk| chunk.vector.is_none()).collect();
    let batch = WriteBatch { stored: documents.iter().map(is_stored).collect(), documents };
    let embed = |missing| embed_missing(context, items, vectors, missing);
    let result = context.ingest.write(&target, batch, embed).await?;
    Ok(result.superseded.into_iter().collect())
}

/// Embeds chunks that were stored when their documents were at the embedding stage, and were deleted since.
async fn embed_missing(
    context: &StageContext,
    items: &[&Item],
    vectors: &Vectors,
    missing: Vec<MissingChunk>,
) -> Result<Vec<Vec<f32>>, StageFailure> {
    let (tenant, collection) = (items[0].user().directory_name(), &items[0].spec().collection);
    let binding = context.ingest.store.get(CollectionRef { tenant: &tenant, collection }).await?.binding;
    let dimensions = if binding.custom_dimensions { NonZeroUsize::new(vectors.dim) } else { None };
    let mut requests: BTreeMap<usize, ChunksToEmbed<'_>> = BTreeMap::new();
    let count = missing.len();
    for at in missing {
        let request = || ChunksToEmbed { item: items[at.document], dimensions, chunks: Vec::new() };
        requests.entry(at.document).or_insert_with(request).chunks.push(at.chunk);
    }
    let requests: Vec<_> = requests.into_values().collect();
    let mut rows = Vec::with_capacity(count);
    for embedded in embed_chunks(context, &requests).await {
        for (embeddings, row) in embedded? {
            check_space(collection, &vectors.space, &embeddings.space)?;
            rows.extend(embeddings.rows().nth(row).map(<[f32]>::to_vec));
        }
    }
    Ok(rows)
}

impl From<StoreError> for StageFailure {
    fn from(error: StoreError) -> Self {
        Self::from_store_error(&error)
    }
}

fn vectors(item: &Item) -> Result<&Vectors, StageFailure> {
    let missing =
        || StageFailure::retry("internal", "the vectors of the document are missing in the job store");
    item.work.vectors.as_ref().ok_or_else(missing)
}

fn with_vectors(item: &Item) -> Result<CheckedDocument, StageFailure> {
    let (mut document, vectors) = (document(item)?, vectors(item)?);
    for (chunk, row) in vectors.rows.iter().enumerate() {
        let row = row.and_then(|row| usize::try_from(row).ok());
        if let Some(vector) = row.and_then(|row| vectors.data.chunks_exact(vectors.dim.max(1)).nth(row)) {
            document.set_vector(chunk, vector.to_vec());
        }
    }
    Ok(document)
}

/// Creates the collection when it does not exist; another writer may do so at the same moment. Returns false when the
/// collection was deleted after the submission.
async fn ensure_collection(
    context: &StageContext,
    collection: CollectionRef<'_>,
    new: NewCollection,
) -> Result<bool, StageFailure> {
    let store = &context.ingest.store;
    match store.get(collection).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => {}
        found => return Ok(found.map(|_| true)?),
    }
    match store.create(collection, new).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        Err(error) if error.kind != StoreErrorKind::Exists => Err(error.into()),
        _ => Ok(true),
    }
}
