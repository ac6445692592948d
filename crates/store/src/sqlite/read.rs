//! Reads of documents.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{
    collections::{CollectionRow, find, metadata_from_json},
    write::{headings_from_row, span_from_row},
};
use crate::{ChunkKey, CollectionRef, DocumentView, StoreError, StoredChunk, StoredDocument, vector_id};

/// Returns whether each chunk is stored. A stored chunk always has its vector of the active generation.
pub(super) fn existing_chunks(
    tx: &Transaction<'_>,
    name: &str,
    documents: &[(String, Vec<ChunkKey>)],
) -> Result<Vec<Vec<bool>>, StoreError> {
    let collection = find(tx, name)?;
    let mut statement = tx.prepare_cached(
        "SELECT c.fingerprint, c.occurrence FROM documents d JOIN chunks c ON c.document = d.id
         WHERE d.collection = ?1 AND d.name = ?2",
    )?;
    documents
        .iter()
        .map(|(document, keys)| {
            let rows = statement.query_map(params![collection.id, document], |row| {
                Ok(ChunkKey { fingerprint: row.get(0)?, occurrence: row.get(1)? })
            })?;
            let stored = rows.collect::<Result<std::collections::HashSet<_>, _>>()?;
            Ok(keys.iter().map(|key| stored.contains(key)).collect())
        })
        .collect()
}

pub(super) fn documents(
    tx: &Transaction<'_>,
    name: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<DocumentView>, StoreError> {
    let collection = find(tx, name)?;
    let mut statement = tx.prepare_cached(
        "SELECT name, metadata, (SELECT count(*) FROM chunks WHERE document = documents.id) FROM documents
         WHERE collection = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![collection.id, after, limit as i64], |row| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))
    })?;
    rows.map(|row| {
        let (id, metadata, chunks) = row?;
        Ok(DocumentView { id, metadata: metadata_from_json(&metadata)?, chunks })
    })
    .collect()
}

pub(super) fn document(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    id: &str,
) -> Result<StoredDocument, StoreError> {
    let collection = find(tx, collection_ref.collection)?;
    let row = tx
        .prepare_cached("SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name = ?2")?
        .query_row(params![collection.id, id], DocumentRow::from_row)
        .optional()?;
    let row = row.ok_or_else(|| StoreError::no_document(collection_ref.collection, id))?;
    stored_document(tx, collection_ref, &collection, row)
}

pub(super) fn export(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    after: &str,
    limit: usize,
) -> Result<Vec<StoredDocument>, StoreError> {
    let collection = find(tx, collection_ref.collection)?;
    let mut statement = tx.prepare_cached(
        "SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![collection.id, after, limit as i64], DocumentRow::from_row)?;
    rows.map(|row| stored_document(tx, collection_ref, &collection, row?)).collect()
}

/// A row of the table `documents`.
pub(super) struct DocumentRow {
    /// Primary key.
    pub(super) key: i64,
    /// Id that the client chose.
    pub(super) name: String,
    /// Metadata as JSON.
    pub(super) metadata: String,
}

impl DocumentRow {
    /// Reads the columns `id`, `name` and `metadata`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { key: row.get(0)?, name: row.get(1)?, metadata: row.get(2)? })
    }
}

/// Reads the chunks of a document.
fn stored_document(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    collection: &CollectionRow,
    document: DocumentRow,
) -> Result<StoredDocument, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT c.fingerprint, c.occurrence, c.text, c.byte_from, c.byte_to, c.char_from, c.char_to, v.vector,
                c.headings
         FROM chunks c JOIN vectors v ON v.chunk = c.id AND v.generation = ?2
         WHERE c.document = ?1 ORDER BY c.ordinal",
    )?;
    let space = &collection.view.binding.space;
    let rows = statement.query_map([document.key, collection.active], |row| {
        let key = ChunkKey { fingerprint: row.get(0)?, occurrence: row.get(1)? };
        Ok(StoredChunk {
            id: vector_id(collection_ref, &document.name, key, space),
            text: row.get(2)?,
            span: span_from_row(row, 3)?,
            headings: headings_from_row(row, 8)?,
            vector: decode_vector(row.get_ref(7)?.as_blob()?),
        })
    })?;
    let chunks = rows.collect::<Result<_, _>>()?;
    Ok(StoredDocument { metadata: metadata_from_json(&document.metadata)?, chunks, id: document.name })
}

/// Decodes a stored vector: f32, little-endian.
pub(super) fn decode_vector(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
