//! Documents in and out. As in the embedded store a document is compared with what is stored of it; here the whole
//! request is compared at once, so that it takes a few statements however many documents there are.

use std::{borrow::Cow, collections::HashMap};

use deadpool_postgres::Transaction;
use embeddery_core::{SpaceId, squared_length, to_unit_length};
use pgvector::HalfVector;
use serde_json::Value;
use uuid::Uuid;

use super::{
    collections::{Found, LockMode, find},
    connection::{Connections, new_ids},
    filter, tombstones,
};
use crate::{
    CollectionRef, DeleteTarget, Document, Fingerprint, Span, StoreError, StoreErrorKind, UpsertResult,
    check_vector, fingerprints, types::ChunkKey,
};

pub(super) async fn upsert(
    connections: &Connections,
    place: CollectionRef<'_>,
    space: Option<SpaceId>,
    mut documents: Vec<Document>,
) -> Result<UpsertResult, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::Shared).await?;
    let binding = &found.view.binding;
    if let Some(space) = space.filter(|space| *space != binding.space) {
        return Err(StoreError::space_mismatch(place.collection, &binding.space, &space));
    }
    // The last of the same id holds. All writers take documents in one order, so that none waits for another that
    // waits for it.
    documents.reverse();
    documents.sort_by(|a, b| a.id.cmp(&b.id));
    documents.dedup_by(|later, first| later.id == first.id);

    let mut rows = put_documents(&tx, (place.tenant, &found), &documents).await?;
    drop_deleted(&tx, place, (&documents, &mut rows)).await?;
    let current: Vec<i64> = rows.iter().filter_map(|row| row.as_ref().ok().copied()).collect();
    let mut stored = stored_chunks(&tx, &current).await?;
    let (mut written, mut new, mut moved) =
        (UpsertResult::default(), NewChunks::default(), MovedChunks::default());
    for (document, row) in documents.iter().zip(rows) {
        let row = match row {
            Ok(row) => row,
            Err(Overtaken(by)) => {
                written.overtaken.push((document.id.clone(), by));
                continue;
            }
        };
        let keys = fingerprints(document.chunks.iter().map(|chunk| chunk.text.as_str()));
        for (ordinal, (chunk, key)) in document.chunks.iter().zip(keys).enumerate() {
            let at = (ordinal as i64, chunk.span, headings_text(&chunk.headings));
            if let Some((id, before)) = stored.remove(&(row, key)) {
                if before != at {
                    moved.push(id, at);
                }
                written.kept += 1;
                continue;
            }
            let Some(vector) = &chunk.vector else {
                return Err(StoreError::new(
                    StoreErrorKind::VectorMissing,
                    format!(
                        "document '{}' was changed by somebody else meanwhile; send it again",
                        document.id
                    ),
                ));
            };
            check_vector(vector, binding.dim)?;
            new.push((row, key, at), &chunk.text, to_half_unit(vector));
            written.added += 1;
        }
    }
    let gone: Vec<i64> = stored.into_values().map(|(id, _)| id).collect();
    written.removed = gone.len() as u64;
    tx.execute("DELETE FROM embeddery.chunks WHERE id = ANY($1)", &[&gone]).await?;
    moved.write(&tx).await?;
    new.write(&tx, place.tenant, found.live).await?;
    tx.commit().await?;
    Ok(written)
}

/// A vector as the database keeps it: of unit length, so that half precision can hold any. One that is of unit
/// length already is left as it is, so that an export imports to the same bits.
pub(super) fn to_half_unit(vector: &[f32]) -> HalfVector {
    let mut unit = Cow::Borrowed(vector);
    if (squared_length(vector).sqrt() - 1.0).abs() >= 0.01 {
        to_unit_length(unit.to_mut());
    }
    HalfVector::from_f32_slice(&unit)
}

/// A document is of this later submission.
struct Overtaken(Uuid);

/// Writes documents' rows and returns their numbers, in order.
async fn put_documents(
    tx: &Transaction<'_>,
    (tenant, found): (&str, &Found),
    documents: &[Document],
) -> Result<Vec<Result<i64, Overtaken>>, StoreError> {
    let ids = new_ids(tx, documents.len()).await?;
    let names: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let metadata: Vec<Value> =
        documents.iter().map(|document| Value::Object(document.metadata.clone())).collect();
    let submissions: Vec<Uuid> =
        documents.iter().map(|document| document.submission.unwrap_or_else(Uuid::now_v7)).collect();
    // What is of no submission comes from one request, alone.
    let whatever = documents.iter().all(|document| document.submission.is_none());
    // Also a row that stays as it is is written: that is what locks it until the end.
    let statement = tx
        .prepare_cached(
            "INSERT INTO embeddery.documents AS old (id, tenant, collection, name, metadata, submission)
             SELECT id, $1, $2, name, metadata, submission
             FROM unnest($3::bigint[], $4::text[], $5::jsonb[], $6::uuid[]) AS new (id, name, metadata, submission)
             ON CONFLICT (collection, name) DO UPDATE SET
                 metadata = CASE WHEN old.submission > excluded.submission AND NOT $7 THEN old.metadata
                                 ELSE excluded.metadata END,
                 submission = greatest(old.submission, excluded.submission)
             RETURNING name, id, submission",
        )
        .await?;
    let rows =
        tx.query(&statement, &[&tenant, &found.id, &ids, &names, &metadata, &submissions, &whatever]).await?;
    let by_name: HashMap<&str, (i64, Uuid)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    names
        .iter()
        .zip(submissions)
        .map(|(name, ours)| match by_name.get(name) {
            Some((_, last)) if *last > ours && !whatever => Ok(Err(Overtaken(*last))),
            Some((id, _)) => Ok(Ok(*id)),
            None => Err(StoreError::internal("a document was not written")),
        })
        .collect()
}

/// Takes those documents out again that were deleted after their submission. Looked at when the rows are locked, so that
/// a deletion at this very moment is seen.
async fn drop_deleted(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    (documents, rows): (&[Document], &mut [Result<i64, Overtaken>]),
) -> Result<(), StoreError> {
    let names: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let deletions = tombstones::last(tx, place, &names).await?;
    let mut gone = Vec::new();
    for (document, row) in documents.iter().zip(rows) {
        if let Ok(id) = row
            && let Some(later) = deletions.after(document.submission, &document.id)
        {
            gone.push(*id);
            *row = Err(Overtaken(later));
        }
    }
    tx.execute("DELETE FROM embeddery.documents WHERE id = ANY($1)", &[&gone]).await?;
    Ok(())
}

/// A chunk's place among its neighbours, in the text, and below its headings.
type ChunkPlace = (i64, Span, Option<Value>);

/// Headings as their column has them.
fn headings_text(headings: &[String]) -> Option<Value> {
    (!headings.is_empty()).then(|| Value::from(headings))
}

/// Headings that stand in a column.
pub(super) fn headings(row: &tokio_postgres::Row, column: usize) -> Vec<String> {
    let list: Option<Value> = row.get(column);
    list.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

async fn stored_chunks(
    tx: &Transaction<'_>,
    documents: &[i64],
) -> Result<HashMap<(i64, ChunkKey), (i64, ChunkPlace)>, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT document, fingerprint, occurrence, id, ordinal, span, headings
             FROM embeddery.chunks WHERE document = ANY($1)",
        )
        .await?;
    let rows = tx.query(&statement, &[&documents]).await?;
    let stored = rows.iter().map(|row| {
        let key = (row.get(0), key(row.get(1), row.get(2)));
        (key, (row.get(3), (row.get(4), span(&row.get::<_, Vec<i64>>(5)), row.get(6))))
    });
    Ok(stored.collect())
}

/// A key that stands in two columns.
pub(super) fn key(fingerprint: &[u8], occurrence: i64) -> ChunkKey {
    ChunkKey {
        fingerprint: Fingerprint::try_from(fingerprint).unwrap_or_default(),
        occurrence: occurrence as u32,
    }
}

/// A span that stands in an array.
pub(super) fn span(numbers: &[i64]) -> Span {
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0) as u64;
    Span { bytes: (at(0), at(1)), characters: (at(2), at(3)) }
}

/// The same as text: an array of arrays would have to be square, and is not what it means.
fn span_text(span: Span) -> String {
    format!("{{{},{},{},{}}}", span.bytes.0, span.bytes.1, span.characters.0, span.characters.1)
}

#[derive(Default)]
struct MovedChunks {
    ids: Vec<i64>,
    ordinals: Vec<i64>,
    spans: Vec<String>,
    headings: Vec<Option<Value>>,
}

impl MovedChunks {
    fn push(&mut self, id: i64, (ordinal, span, headings): ChunkPlace) {
        self.ids.push(id);
        self.ordinals.push(ordinal);
        self.spans.push(span_text(span));
        self.headings.push(headings);
    }

    async fn write(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        tx.execute(
            "UPDATE embeddery.chunks c
             SET ordinal = new.ordinal, span = new.span::bigint[], headings = new.headings
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::jsonb[]) AS new (id, ordinal, span, headings)
             WHERE c.id = new.id",
            &[&self.ids, &self.ordinals, &self.spans, &self.headings],
        )
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct NewChunks<'d> {
    documents: Vec<i64>,
    fingerprints: Vec<Vec<u8>>,
    occurrences: Vec<i64>,
    ordinals: Vec<i64>,
    spans: Vec<String>,
    headings: Vec<Option<Value>>,
    texts: Vec<&'d str>,
    vectors: Vec<HalfVector>,
}

impl<'d> NewChunks<'d> {
    fn push(
        &mut self,
        (document, key, (ordinal, span, headings)): (i64, ChunkKey, ChunkPlace),
        text: &'d str,
        vector: HalfVector,
    ) {
        self.documents.push(document);
        self.fingerprints.push(key.fingerprint.to_vec());
        self.occurrences.push(key.occurrence.into());
        self.ordinals.push(ordinal);
        self.spans.push(span_text(span));
        self.headings.push(headings);
        self.texts.push(text);
        self.vectors.push(vector);
    }

    async fn write(&self, tx: &Transaction<'_>, tenant: &str, generation: i64) -> Result<(), StoreError> {
        if self.documents.is_empty() {
            return Ok(());
        }
        let ids = new_ids(tx, self.documents.len()).await?;
        let chunks = tx
            .prepare_cached(
                "INSERT INTO embeddery.chunks
                     (id, tenant, document, fingerprint, occurrence, ordinal, span, headings, text)
                 SELECT id, $1, document, fingerprint, occurrence, ordinal, span::bigint[], headings, text
                 FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::text[],
                             $8::jsonb[], $9::text[])
                      AS new (id, document, fingerprint, occurrence, ordinal, span, headings, text)",
            )
            .await?;
        tx.execute(
            &chunks,
            &[
                &tenant,
                &ids,
                &self.documents,
                &self.fingerprints,
                &self.occurrences,
                &self.ordinals,
                &self.spans,
                &self.headings,
                &self.texts,
            ],
        )
        .await?;
        add_vectors(tx, (tenant, generation), (&self.documents, &ids, &self.vectors)).await
    }
}

/// Adds vectors to a generation: documents, chunks and vectors side by side.
pub(super) async fn add_vectors(
    tx: &Transaction<'_>,
    (tenant, generation): (&str, i64),
    (documents, chunks, vectors): (&[i64], &[i64], &[HalfVector]),
) -> Result<(), StoreError> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO embeddery.vectors (generation, tenant, document, chunk, embedding)
             SELECT $1, $2, document, chunk, embedding
             FROM unnest($3::bigint[], $4::bigint[], $5::halfvec[]) AS new (document, chunk, embedding)
             ON CONFLICT DO NOTHING",
        )
        .await?;
    tx.execute(&statement, &[&generation, &tenant, &documents, &chunks, &vectors]).await?;
    Ok(())
}

pub(super) async fn delete(
    connections: &Connections,
    place: CollectionRef<'_>,
    removal: DeleteTarget<'_>,
) -> Result<u64, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::Shared).await?;
    let gone = match removal {
        DeleteTarget::Ids(ids) => {
            tx.query(
                "DELETE FROM embeddery.documents WHERE collection = $1 AND name = ANY($2) RETURNING name",
                &[&found.id, &ids],
            )
            .await?
        }
        DeleteTarget::Where(condition) => {
            let mut values = filter::Values::default();
            let condition = filter::compile(condition, &mut values, 2);
            let sql = format!(
                "DELETE FROM embeddery.documents d WHERE d.collection = $1 AND {condition} RETURNING name"
            );
            tx.query(&sql, &values.after(vec![&found.id])).await?
        }
    };
    let names: Vec<&str> = gone.iter().map(|row| row.get(0)).collect();
    tombstones::remember(&tx, place, &names).await?;
    tx.commit().await?;
    Ok(gone.len() as u64)
}
