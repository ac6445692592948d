//! Reads of documents.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Transaction;
use pgvector::HalfVector;
use tokio_postgres::Row;

use super::{
    collections::{CollectionRow, LockMode, find},
    connection::Connections,
    metadata,
    write::{chunk_key, headings_from_row, span_from_array},
};
use crate::{
    CheckedDocument, CollectionRef, DocumentView, PageRequest, StoreError, StoredChunk, StoredDocument,
    fingerprints, vector_id,
};

/// Returns whether each chunk is stored. A stored chunk always has its vector of the active generation.
pub(super) async fn existing_chunks(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    documents: &[CheckedDocument],
) -> Result<Vec<Vec<bool>>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let names: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let rows = tx
        .query(
            "SELECT d.name, c.fingerprint, c.occurrence FROM embeddery.documents d
             JOIN embeddery.chunks c ON c.document = d.id WHERE d.collection = $1 AND d.name = ANY($2)",
            &[&collection.id, &names],
        )
        .await?;
    let stored: HashSet<(&str, _)> =
        rows.iter().map(|row| (row.get(0), chunk_key(row.get(1), row.get(2)))).collect();
    let flags = documents.iter().map(|document| {
        let keys = fingerprints(document.chunks.iter().map(|chunk| chunk.text.as_str()));
        keys.into_iter().map(|key| stored.contains(&(document.id.as_str(), key))).collect()
    });
    Ok(flags.collect())
}

pub(super) async fn documents(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    page: PageRequest<'_>,
) -> Result<Vec<DocumentView>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let rows = tx
        .query(
            "SELECT d.name, d.metadata::text, (SELECT count(*) FROM embeddery.chunks WHERE document = d.id)
             FROM embeddery.documents d WHERE d.collection = $1 AND d.name > $2 ORDER BY d.name LIMIT $3",
            &[&collection.id, &after(page), &(page.limit as i64)],
        )
        .await?;
    let views = rows.iter().map(|row| {
        let metadata = metadata::from_text(row.get(1))?;
        Ok::<_, StoreError>(DocumentView { id: row.get(0), metadata, chunks: row.get::<_, i64>(2) as u64 })
    });
    views.collect()
}

/// Returns the id that a page begins after. PostgreSQL refuses a NUL character. No id has one, so the part before it has
/// the same place among the ids.
fn after(page: PageRequest<'_>) -> &str {
    page.after.unwrap_or_default().split('\0').next().unwrap_or_default()
}

pub(super) async fn document(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    id: &str,
) -> Result<StoredDocument, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let unknown = || StoreError::no_document(collection_ref.collection, id);
    if id.contains('\0') {
        // PostgreSQL refuses the character. No document has such an id.
        return Err(unknown());
    }
    let rows = tx
        .query(
            "SELECT id, name, metadata::text FROM embeddery.documents WHERE collection = $1 AND name = $2",
            &[&collection.id, &id],
        )
        .await?;
    stored_documents(&tx, collection_ref, &collection, rows).await?.pop().ok_or_else(unknown)
}

pub(super) async fn export(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    page: PageRequest<'_>,
) -> Result<Vec<StoredDocument>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let rows = tx
        .query(
            "SELECT id, name, metadata::text FROM embeddery.documents WHERE collection = $1 AND name > $2
             ORDER BY name LIMIT $3",
            &[&collection.id, &after(page), &(page.limit as i64)],
        )
        .await?;
    stored_documents(&tx, collection_ref, &collection, rows).await
}

/// Reads the chunks of documents, whose rows are `id`, `name`, and `metadata` as text.
async fn stored_documents(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    collection: &CollectionRow,
    documents: Vec<Row>,
) -> Result<Vec<StoredDocument>, StoreError> {
    let keys: Vec<i64> = documents.iter().map(|row| row.get(0)).collect();
    let rows = tx
        .query(
            "SELECT c.document, c.fingerprint, c.occurrence, c.text, c.span, v.embedding,
                    c.headings
             FROM embeddery.chunks c JOIN embeddery.vectors v ON v.chunk = c.id AND v.generation = $2
             WHERE c.document = ANY($1) ORDER BY c.document, c.ordinal",
            &[&keys, &collection.active],
        )
        .await?;
    let mut chunks: HashMap<i64, Vec<&Row>> = HashMap::new();
    for row in &rows {
        chunks.entry(row.get(0)).or_default().push(row);
    }
    let space = &collection.view.binding.space;
    let stored = documents.iter().map(|row| {
        let id: String = row.get(1);
        let chunks = chunks.remove(&row.get(0)).unwrap_or_default();
        let chunks = chunks.into_iter().map(|row| StoredChunk {
            id: vector_id(collection_ref, &id, chunk_key(row.get(1), row.get(2)), space),
            text: row.get(3),
            span: span_from_array(&row.get::<_, Vec<i64>>(4)),
            headings: headings_from_row(row, 6),
            vector: row.get::<_, HalfVector>(5).as_slice().iter().map(|x| x.to_f32()).collect(),
        });
        let chunks = chunks.collect();
        Ok::<_, StoreError>(StoredDocument { metadata: metadata::from_text(row.get(2))?, chunks, id })
    });
    stored.collect()
}
