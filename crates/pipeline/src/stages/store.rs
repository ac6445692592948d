//! The last stage: documents become visible. Those of one collection whose vectors are of one model are written in
//! one step; when that fails, each by itself, so that one which cannot be stored keeps no other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
};

use embeddery_core::SpaceId;
use embeddery_store::{
    CollectionRef, Document, ModelBinding, NewCollection, StoreError, StoreErrorKind, UpsertResult,
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Item, StageContext, StageFailure, StageResult,
    embed::{self, Wanted, document},
    persist_results, reason, tenant_dir,
    vector_quota::QuotaReservation,
};
use crate::{DocumentOutcome, JobId, Reason, Stage, Vectors};

pub(super) async fn run(tools: &StageContext, items: &[Item]) -> Vec<StageResult> {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    // What nobody wants any more is not stored: the user may have been deleted meanwhile.
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_dropped()) {
        let plan = &item.work.plan;
        let vectors = item.work.vectors.as_ref().map(|vectors| (vectors.space.as_str(), vectors.dim));
        let model = (&plan.provider, &plan.model, plan.dimensions, vectors);
        groups.entry((&item.work.tenant, &plan.collection, model)).or_default().push(index);
    }
    let groups = groups.into_values().map(|members| async move {
        let mut done = Vec::with_capacity(members.len());
        for round in rounds(items, members) {
            let these: Vec<&Item> = round.iter().map(|&index| &items[index]).collect();
            done.extend(round.into_iter().zip(write(tools, &these).await));
        }
        done
    });
    let mut ends: Vec<_> = items.iter().map(|_| Err(StageResult::Done)).collect();
    for (index, end) in join_all(groups).await.into_iter().flatten() {
        ends[index] = end.map_err(StageResult::Trouble);
    }
    persist_results(Stage::Storage, items, ends, async |ends| tools.jobs.finish(ends).await).await
}

/// Documents of one id are of several jobs, and are written one after the other.
fn rounds(items: &[Item], members: Vec<usize>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<(HashSet<&str>, Vec<usize>)> = Vec::new();
    for index in members {
        let id = items[index].work.document.id.as_str();
        match rounds.iter_mut().find(|(ids, _)| !ids.contains(id)) {
            Some((ids, members)) => {
                ids.insert(id);
                members.push(index);
            }
            None => rounds.push((HashSet::from([id]), vec![index])),
        }
    }
    rounds.into_iter().map(|(_, members)| members).collect()
}

/// Writes documents of one collection, together if that works.
async fn write(tools: &StageContext, items: &[&Item]) -> Vec<Result<DocumentOutcome, StageFailure>> {
    let together = match items {
        [_, _, ..] => match store(tools, items).await {
            // It would be the same for each of them.
            Err(Refused::Trouble(trouble @ StageFailure::Defer { .. })) => {
                return vec![Err(trouble); items.len()];
            }
            stored => stored.ok(),
        },
        _ => None,
    };
    let together = together.as_ref();
    join_all(items.iter().map(|item| async move {
        let overtaken = match together {
            Some(overtaken) => overtaken.get(&item.work.document.id).copied(),
            None => write_single(tools, item).await?,
        };
        Ok(match overtaken {
            Some(by) => DocumentOutcome::Superseded(superseded(tools, item, by).await),
            None => {
                let chunks = item.work.vectors.as_ref().map_or(0, |vectors| vectors.rows.len() as u64);
                DocumentOutcome::Stored { chunks }
            }
        })
    }))
    .await
}

/// Writes one document; says by which submission it is overtaken, if it is.
async fn write_single(tools: &StageContext, item: &Item) -> Result<Option<Uuid>, StageFailure> {
    let stored = match store(tools, &[item]).await {
        Err(Refused::VectorMissing) => store_whole(tools, item).await,
        other => other,
    };
    match stored {
        Ok(overtaken) => Ok(overtaken.into_values().next()),
        Err(Refused::Trouble(trouble)) => Err(trouble),
        Err(Refused::VectorMissing) => {
            Err(StageFailure::again("collection_changed", "the document was changed meanwhile"))
        }
    }
}

/// Why a document is not stored that a later submission has overtaken: a job's, or that of a caller who waited.
async fn superseded(tools: &StageContext, item: &Item, by: Uuid) -> Reason {
    let message = match tools.jobs.job(&item.work.tenant, JobId(by)).await {
        Ok(Some(job)) => format!("superseded by job {}, which was submitted later", job.id),
        _ => "superseded by a later version of the document, or by its deletion".to_owned(),
    };
    reason("superseded", message)
}

/// Documents of which a later submission is stored, and which.
type Superseded = HashMap<String, Uuid>;

enum Refused {
    /// A vector that was there is gone: somebody changed the document, or deleted the collection.
    VectorMissing,
    Trouble(StageFailure),
}

impl From<StageFailure> for Refused {
    fn from(trouble: StageFailure) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::VectorMissing => Self::VectorMissing,
            _ => Self::Trouble(StageFailure::of_store(&error)),
        }
    }
}

/// Writes documents of one collection with the vectors that the job store has.
async fn store(tools: &StageContext, items: &[&Item]) -> Result<Superseded, Refused> {
    let mut documents = Vec::with_capacity(items.len());
    for item in items {
        documents.push(with_vectors(item, vectors(item)?)?);
    }
    upsert(tools, items[0], vectors(items[0])?.space.clone(), documents).await
}

/// Makes the vectors that are missing and writes one document with all of them.
async fn store_whole(tools: &StageContext, item: &Item) -> Result<Superseded, Refused> {
    let vectors = vectors(item)?;
    let mut document = with_vectors(item, vectors)?;
    let absent = |(chunk, row): (usize, &Option<u32>)| row.is_none().then_some(chunk);
    let chunks: Vec<usize> = vectors.rows.iter().enumerate().filter_map(absent).collect();
    let tenant = tenant_dir(&item.work.tenant);
    let place = CollectionRef { tenant: &tenant, collection: &item.work.plan.collection };
    let cut = tools.store.get(place).await?.binding.custom_dimensions;
    let dimensions = if cut { NonZeroUsize::new(vectors.dim) } else { None };
    let wanted = [Wanted { item, dimensions, chunks: chunks.clone() }];
    let made = embed::vectors(tools, &wanted).await.pop().unwrap_or_else(|| Ok(Vec::new()))?;
    for (chunk, (answer, row)) in chunks.into_iter().zip(made) {
        if answer.space != vectors.space {
            return Err(StoreError::space_mismatch(place.collection, &vectors.space, &answer.space).into());
        }
        document.chunks[chunk].vector = answer.rows().nth(row).map(<[f32]>::to_vec);
    }
    upsert(tools, item, vectors.space.clone(), vec![document]).await
}

fn vectors(item: &Item) -> Result<&Vectors, StageFailure> {
    let lost = || StageFailure::again("internal", "the document's vectors are lost");
    item.work.vectors.as_ref().ok_or_else(lost)
}

fn with_vectors(item: &Item, vectors: &Vectors) -> Result<Document, StageFailure> {
    let mut document = document(item)?;
    for (chunk, row) in document.chunks.iter_mut().zip(&vectors.rows) {
        let row = row.and_then(|row| usize::try_from(row).ok());
        chunk.vector =
            row.and_then(|row| vectors.data.chunks_exact(vectors.dim.max(1)).nth(row)).map(<[f32]>::to_vec);
    }
    Ok(document)
}

/// Writes documents, into a new collection when it is not there, within the tenant's quota of vectors.
async fn upsert(
    tools: &StageContext,
    first: &Item,
    space: SpaceId,
    documents: Vec<Document>,
) -> Result<Superseded, Refused> {
    let (tenant, plan) = (tenant_dir(&first.work.tenant), &first.work.plan);
    let place = CollectionRef { tenant: &tenant, collection: &plan.collection };
    let dim = vectors(first)?.dim;
    let binding = ModelBinding {
        provider: plan.provider.clone(),
        model: plan.model.clone(),
        space: space.clone(),
        dim,
        custom_dimensions: plan.dimensions.is_some(),
    };
    if !bind(tools, place, (binding, documents.iter().filter_map(|document| document.submission).max()))
        .await?
    {
        return Ok(documents.into_iter().map(|document| (document.id, Uuid::nil())).collect());
    }
    let new = documents.iter().flat_map(|document| &document.chunks).filter(|chunk| chunk.vector.is_some());
    let new = new.count() as u64;
    let room = QuotaReservation::take(tools, &first.work.tenant, new).await?;
    let space = (new > 0).then_some(space);
    let written =
        match tokio::time::timeout(tools.patience, tools.store.upsert(place, space, documents)).await {
            Ok(written) => written.map_err(Refused::from),
            Err(_) => Err(StageFailure::again("timeout", "the store took too long").into()),
        };
    match written {
        Ok(written) => {
            room.used(&written).await;
            Ok(written.superseded.into_iter().collect())
        }
        Err(refused) => {
            room.used(&UpsertResult::default()).await;
            Err(refused)
        }
    }
}

/// Makes the collection when it is not there, which somebody else may do at the same moment. False when it was deleted
/// after the submission.
async fn bind(
    tools: &StageContext,
    place: CollectionRef<'_>,
    (binding, submission): (ModelBinding, Option<Uuid>),
) -> Result<bool, StoreError> {
    match tools.store.get(place).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => {}
        found => return found.map(|_| true),
    }
    let new = NewCollection { binding, metadata: serde_json::Map::new(), submission };
    match tools.store.create(place, new).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        Err(error) if error.kind != StoreErrorKind::Exists => Err(error),
        _ => Ok(true),
    }
}
