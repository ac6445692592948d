//! Upsert and delete of documents. As in the embedded store, a document is compared with its stored version. Here all
//! documents of a request are compared at once, so that the number of statements does not grow with the documents.

use std::{borrow::Cow, collections::HashMap};

use deadpool_postgres::Transaction;
use embeddery_core::{SpaceId, squared_length, to_unit_length};
use pgvector::HalfVector;
use serde_json::Value;
use uuid::Uuid;

use super::{
    collections::{CollectionRow, LockMode, find},
    connection::{Connections, new_ids},
    filter::{self, FilterParameters},
    metadata, tombstones,
    words::{NewWords, TotalsChange},
};
use crate::{
    CheckedDocument, ChunkKey, CollectionRef, DeleteTarget, DocumentChunk, Fingerprint, StoreError, TextSpan,
    UpsertResult, check_vector, fingerprints,
};

/// Stores documents, see [`VectorStore::upsert`](crate::VectorStore::upsert).
pub(super) async fn upsert(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    space: Option<SpaceId>,
    mut documents: Vec<CheckedDocument>,
) -> Result<UpsertResult, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::Shared).await?;
    let binding = &collection.view.binding;
    if let Some(space) = space.filter(|space| *space != binding.space) {
        return Err(StoreError::space_mismatch(collection_ref.collection, &binding.space, &space));
    }
    // Of documents with the same id the last one is kept. All writers lock documents in the order of their ids, so
    // that two writers cannot deadlock.
    documents.reverse();
    documents.sort_by(|a, b| a.id.cmp(&b.id));
    documents.dedup_by(|next, previous| next.id == previous.id);

    let mut writes = write_documents(&tx, collection_ref.tenant, &collection, &documents).await?;
    let mut totals = TotalsChange::default();
    remove_deleted(&tx, collection_ref, &documents, &mut writes, &mut totals).await?;
    let keys: Vec<i64> = writes.iter().filter_map(DocumentWrite::key).collect();
    let mut stored = stored_chunks(&tx, &keys).await?;
    let (mut result, mut new, mut moved) =
        (UpsertResult::default(), NewChunks::default(), MovedChunks::default());
    for (document, write) in documents.iter().zip(writes) {
        let document_key = match write {
            DocumentWrite::Written(key) => key,
            DocumentWrite::Superseded(by) => {
                result.superseded.push((document.id.clone(), by));
                continue;
            }
        };
        let keys = fingerprints(document.chunks.iter().map(|chunk| chunk.text.as_str()));
        for (ordinal, (chunk, key)) in document.chunks.iter().zip(keys).enumerate() {
            let position = ChunkPosition::new(ordinal, chunk);
            if let Some(before) = stored.remove(&(document_key, key)) {
                if before.position != position {
                    moved.push(before.id, position);
                }
                result.kept += 1;
                continue;
            }
            let Some(vector) = &chunk.vector else {
                return Err(StoreError::vector_missing(&document.id));
            };
            check_vector(vector, binding.dim)?;
            new.push(document_key, key, position, &chunk.text, to_half_unit(vector));
            result.added += 1;
        }
    }
    let removed: Vec<i64> = stored.into_values().map(|chunk| chunk.id).collect();
    result.removed = removed.len() as u64;
    let rows =
        tx.query("DELETE FROM embeddery.chunks WHERE id = ANY($1) RETURNING word_count", &[&removed]).await?;
    rows.iter().for_each(|row| totals.remove(1, row.get::<_, i32>(0).into()));
    moved.write(&tx).await?;
    let words = NewWords::from_texts(new.texts.iter().map(|text| (collection.id, *text))).await?;
    words.counts.iter().for_each(|count| totals.add(*count));
    new.write(&tx, collection_ref.tenant, collection.active, &words).await?;
    totals.write(&tx, collection_ref.tenant, collection.id).await?;
    tx.commit().await?;
    Ok(result)
}

/// Converts a vector for the database: to unit length, so that half precision can hold its numbers, and to half
/// precision. A vector of unit length is not scaled, so that the import of an export stores the same bits.
pub(super) fn to_half_unit(vector: &[f32]) -> HalfVector {
    let mut unit = Cow::Borrowed(vector);
    if (squared_length(vector).sqrt() - 1.0).abs() >= 0.01 {
        to_unit_length(unit.to_mut());
    }
    HalfVector::from_f32_slice(&unit)
}

/// Result of writing the row of a document.
enum DocumentWrite {
    /// The row with this key was inserted or updated.
    Written(i64),
    /// Nothing was written, because this later submission wrote or deleted the document.
    Superseded(Uuid),
}

impl DocumentWrite {
    /// The key of a row that was written.
    fn key(&self) -> Option<i64> {
        match self {
            Self::Written(key) => Some(*key),
            Self::Superseded(_) => None,
        }
    }
}

/// Inserts or updates the rows of documents, unless they are superseded, and returns the results in order.
async fn write_documents(
    tx: &Transaction<'_>,
    tenant: &str,
    collection: &CollectionRow,
    documents: &[CheckedDocument],
) -> Result<Vec<DocumentWrite>, StoreError> {
    let ids = new_ids(tx, documents.len()).await?;
    let names: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let metadata = documents
        .iter()
        .map(|document| metadata::to_text(&document.metadata))
        .collect::<Result<Vec<_>, _>>()?;
    let submissions: Vec<Uuid> =
        documents.iter().map(|document| document.submission.unwrap_or_else(Uuid::now_v7)).collect();
    // Documents of an inline request have no submission and replace any version. They never come mixed with others.
    let unconditional = documents.iter().all(|document| document.submission.is_none());
    // A superseded row is written, too, with its old values, because the write locks it until the transaction ends.
    let statement = tx
        .prepare_cached(
            "INSERT INTO embeddery.documents AS old (id, tenant, collection, name, metadata, submission)
             SELECT id, $1, $2, name, metadata::jsonb, submission
             FROM unnest($3::bigint[], $4::text[], $5::text[], $6::uuid[]) AS new (id, name, metadata, submission)
             ON CONFLICT (collection, name) DO UPDATE SET
                 metadata = CASE WHEN old.submission > excluded.submission AND NOT $7 THEN old.metadata
                                 ELSE excluded.metadata END,
                 submission = greatest(old.submission, excluded.submission)
             RETURNING name, id, submission",
        )
        .await?;
    let rows = tx
        .query(&statement, &[&tenant, &collection.id, &ids, &names, &metadata, &submissions, &unconditional])
        .await?;
    let by_name: HashMap<&str, (i64, Uuid)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    names
        .iter()
        .zip(submissions)
        .map(|(name, submission)| match by_name.get(name) {
            Some((_, last)) if *last > submission && !unconditional => Ok(DocumentWrite::Superseded(*last)),
            Some((key, _)) => Ok(DocumentWrite::Written(*key)),
            None => Err(StoreError::internal("a document was not written")),
        })
        .collect()
}

/// Removes the rows of documents that were deleted after their submission. It runs after the rows are locked, so that it
/// sees a concurrent deletion.
async fn remove_deleted(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    documents: &[CheckedDocument],
    writes: &mut [DocumentWrite],
    totals: &mut TotalsChange,
) -> Result<(), StoreError> {
    let names: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let tombstones = tombstones::latest(tx, collection_ref, &names).await?;
    let mut deleted = Vec::new();
    for (document, write) in documents.iter().zip(writes) {
        if let Some(key) = write.key()
            && let Some(deletion) = tombstones.after(document.submission, &document.id)
        {
            deleted.push(key);
            *write = DocumentWrite::Superseded(deletion);
        }
    }
    if !deleted.is_empty() {
        let sql = delete_and_count("d.id = ANY($1)");
        count_deleted(&tx.query(&sql, &[&deleted]).await?, totals);
    }
    Ok(())
}

/// Position of a chunk: among the chunks, in the text, and below its headings.
#[derive(PartialEq)]
struct ChunkPosition {
    ordinal: i64,
    span: TextSpan,
    /// Headings as their column holds them: a JSON list, or NULL for none.
    headings: Option<Value>,
}

impl ChunkPosition {
    fn new(ordinal: usize, chunk: &DocumentChunk) -> Self {
        let headings = (!chunk.headings.is_empty()).then(|| Value::from(chunk.headings.as_slice()));
        Self { ordinal: ordinal as i64, span: chunk.span, headings }
    }
}

/// A stored chunk of a document.
struct ChunkRow {
    id: i64,
    position: ChunkPosition,
}

/// Reads the headings of a chunk.
pub(super) fn headings_from_row(row: &tokio_postgres::Row, column: usize) -> Vec<String> {
    let list: Option<Value> = row.get(column);
    list.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

/// Reads the chunks of documents by the keys of document and chunk.
async fn stored_chunks(
    tx: &Transaction<'_>,
    documents: &[i64],
) -> Result<HashMap<(i64, ChunkKey), ChunkRow>, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT document, fingerprint, occurrence, id, ordinal, span, headings
             FROM embeddery.chunks WHERE document = ANY($1)",
        )
        .await?;
    let rows = tx.query(&statement, &[&documents]).await?;
    let stored = rows.iter().map(|row| {
        let span = span_from_array(&row.get::<_, Vec<i64>>(5));
        let position = ChunkPosition { ordinal: row.get(4), span, headings: row.get(6) };
        ((row.get(0), chunk_key(row.get(1), row.get(2))), ChunkRow { id: row.get(3), position })
    });
    Ok(stored.collect())
}

/// Returns a chunk key from its two columns.
pub(super) fn chunk_key(fingerprint: &[u8], occurrence: i64) -> ChunkKey {
    ChunkKey {
        fingerprint: Fingerprint::try_from(fingerprint).unwrap_or_default(),
        occurrence: occurrence as u32,
    }
}

/// Returns a span from its column, an array of four numbers.
pub(super) fn span_from_array(numbers: &[i64]) -> TextSpan {
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0) as u64;
    TextSpan { bytes: (at(0), at(1)), characters: (at(2), at(3)) }
}

/// Returns a span as the text of an array. Arrays inside the parameter array would make one array of two dimensions,
/// which `unnest` flattens.
fn span_to_text(span: TextSpan) -> String {
    format!("{{{},{},{},{}}}", span.bytes.0, span.bytes.1, span.characters.0, span.characters.1)
}

/// Stored chunks whose position has changed, as columns.
#[derive(Default)]
struct MovedChunks {
    ids: Vec<i64>,
    ordinals: Vec<i64>,
    spans: Vec<String>,
    headings: Vec<Option<Value>>,
}

impl MovedChunks {
    fn push(&mut self, id: i64, position: ChunkPosition) {
        self.ids.push(id);
        self.ordinals.push(position.ordinal);
        self.spans.push(span_to_text(position.span));
        self.headings.push(position.headings);
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

/// Chunks to add, as columns.
#[derive(Default)]
struct NewChunks<'d> {
    fingerprints: Vec<Vec<u8>>,
    occurrences: Vec<i64>,
    ordinals: Vec<i64>,
    spans: Vec<String>,
    headings: Vec<Option<Value>>,
    texts: Vec<&'d str>,
    /// Documents and vectors of the chunks. The keys of the chunks are added when the chunks are written.
    vectors: NewVectors,
}

impl<'d> NewChunks<'d> {
    fn push(
        &mut self,
        document: i64,
        key: ChunkKey,
        position: ChunkPosition,
        text: &'d str,
        vector: HalfVector,
    ) {
        self.vectors.documents.push(document);
        self.fingerprints.push(key.fingerprint.to_vec());
        self.occurrences.push(key.occurrence.into());
        self.ordinals.push(position.ordinal);
        self.spans.push(span_to_text(position.span));
        self.headings.push(position.headings);
        self.texts.push(text);
        self.vectors.vectors.push(vector);
    }

    async fn write(
        mut self,
        tx: &Transaction<'_>,
        tenant: &str,
        generation: i64,
        words: &NewWords,
    ) -> Result<(), StoreError> {
        if self.texts.is_empty() {
            return Ok(());
        }
        self.vectors.chunks = new_ids(tx, self.texts.len()).await?;
        let chunks = tx
            .prepare_cached(
                "INSERT INTO embeddery.chunks
                     (id, tenant, document, fingerprint, occurrence, ordinal, span, headings, text, word_count)
                 SELECT id, $1, document, fingerprint, occurrence, ordinal, span::bigint[], headings, text, word_count
                 FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::text[],
                             $8::jsonb[], $9::text[], $10::integer[])
                      AS new (id, document, fingerprint, occurrence, ordinal, span, headings, text, word_count)",
            )
            .await?;
        tx.execute(
            &chunks,
            &[
                &tenant,
                &self.vectors.chunks,
                &self.vectors.documents,
                &self.fingerprints,
                &self.occurrences,
                &self.ordinals,
                &self.spans,
                &self.headings,
                &self.texts,
                &words.counts,
            ],
        )
        .await?;
        words.write(tx, tenant, &self.vectors.chunks).await?;
        add_vectors(tx, tenant, generation, &self.vectors).await
    }
}

/// Vectors to add, as columns: one document, one chunk and one vector for each.
#[derive(Default)]
pub(super) struct NewVectors {
    pub(super) documents: Vec<i64>,
    pub(super) chunks: Vec<i64>,
    pub(super) vectors: Vec<HalfVector>,
}

/// Adds vectors to a generation. A chunk that has its vector is left as it is.
pub(super) async fn add_vectors(
    tx: &Transaction<'_>,
    tenant: &str,
    generation: i64,
    new: &NewVectors,
) -> Result<(), StoreError> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO embeddery.vectors (generation, tenant, document, chunk, embedding)
             SELECT $1, $2, document, chunk, embedding
             FROM unnest($3::bigint[], $4::bigint[], $5::halfvec[]) AS new (document, chunk, embedding)
             ON CONFLICT DO NOTHING",
        )
        .await?;
    tx.execute(&statement, &[&generation, &tenant, &new.documents, &new.chunks, &new.vectors]).await?;
    Ok(())
}

/// Deletes documents, records tombstones for them, and returns how many were deleted.
pub(super) async fn delete(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    target: DeleteTarget<'_>,
) -> Result<u64, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::Shared).await?;
    let locked = match target {
        DeleteTarget::Ids(ids) => {
            // PostgreSQL refuses a text with a NUL character. No document has such an id.
            let ids: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !id.contains('\0')).collect();
            tx.query(&lock_documents("d.collection = $1 AND d.name = ANY($2)"), &[&collection.id, &ids])
                .await?
        }
        DeleteTarget::All => tx.query(&lock_documents("d.collection = $1"), &[&collection.id]).await?,
        DeleteTarget::Where(filter) => {
            let mut filter_parameters = FilterParameters::default();
            let condition = filter::compile(filter, &mut filter_parameters, 2);
            let sql = lock_documents(&format!("d.collection = $1 AND {condition}"));
            tx.query(&sql, &filter_parameters.append_to(vec![&collection.id])).await?
        }
    };
    let keys: Vec<i64> = locked.iter().map(|row| row.get(0)).collect();
    let deleted = tx.query(&delete_and_count("d.id = ANY($1)"), &[&keys]).await?;
    let mut totals = TotalsChange::default();
    count_deleted(&deleted, &mut totals);
    let names: Vec<&str> = deleted.iter().map(|row| row.get(0)).collect();
    tombstones::record(&tx, collection_ref, &names).await?;
    totals.write(&tx, collection_ref.tenant, collection.id).await?;
    tx.commit().await?;
    Ok(deleted.len() as u64)
}

/// Returns a statement that locks documents `d` and returns their keys. It waits for other writers of these documents, in
/// the order in which all writers lock documents.
fn lock_documents(condition: &str) -> String {
    format!("SELECT d.id FROM embeddery.documents d WHERE {condition} ORDER BY d.name FOR UPDATE")
}

/// Returns a statement that deletes documents `d` and returns the name, the number of chunks and the number of tokens of
/// each. The documents are locked before: a statement that waits for a lock counts the chunks as they were before the
/// wait.
fn delete_and_count(condition: &str) -> String {
    // The subqueries see the chunks as they were before the deletion.
    format!(
        "WITH deleted AS (DELETE FROM embeddery.documents d WHERE {condition} RETURNING d.id, d.name)
         SELECT name, count(c.id), coalesce(sum(c.word_count), 0)::bigint
         FROM deleted LEFT JOIN embeddery.chunks c ON c.document = deleted.id GROUP BY deleted.id, name"
    )
}

/// Adds rows of [`delete_and_count`] to a change.
fn count_deleted(rows: &[tokio_postgres::Row], totals: &mut TotalsChange) {
    rows.iter().for_each(|row| totals.remove(row.get(1), row.get(2)));
}
