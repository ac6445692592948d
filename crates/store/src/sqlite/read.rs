//! Documents as they are stored.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    collections::{Found, find, read_metadata},
    write::{headings, span},
};
use crate::{
    CollectionRef, DocumentView, StoreError, StoredChunk, StoredDocument, types::ChunkKey, vector_id,
};

/// For each chunk, whether it is stored; a stored chunk has its live vector.
pub(super) fn stored(
    tx: &Transaction<'_>,
    name: &str,
    documents: &[(String, Vec<ChunkKey>)],
) -> Result<Vec<Vec<bool>>, StoreError> {
    let found = find(tx, name)?;
    let mut statement = tx.prepare_cached(
        "SELECT c.fingerprint, c.occurrence FROM documents d JOIN chunks c ON c.document = d.id
         WHERE d.collection = ?1 AND d.name = ?2",
    )?;
    documents
        .iter()
        .map(|(document, keys)| {
            let rows = statement.query_map(params![found.id, document], |row| {
                Ok(ChunkKey { fingerprint: row.get(0)?, occurrence: row.get(1)? })
            })?;
            let there = rows.collect::<Result<std::collections::HashSet<_>, _>>()?;
            Ok(keys.iter().map(|key| there.contains(key)).collect())
        })
        .collect()
}

pub(super) fn documents(
    tx: &Transaction<'_>,
    name: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<DocumentView>, StoreError> {
    let found = find(tx, name)?;
    let mut statement = tx.prepare_cached(
        "SELECT name, metadata, (SELECT count(*) FROM chunks WHERE document = documents.id) FROM documents
         WHERE collection = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![found.id, after, limit as i64], |row| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))
    })?;
    rows.map(|row| {
        let (id, metadata, chunks) = row?;
        Ok(DocumentView { id, metadata: read_metadata(&metadata)?, chunks })
    })
    .collect()
}

pub(super) fn document(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    id: &str,
) -> Result<StoredDocument, StoreError> {
    let found = find(tx, place.collection)?;
    let row = tx
        .prepare_cached("SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name = ?2")?
        .query_row(params![found.id, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let row = row.ok_or_else(|| StoreError::no_document(place.collection, id))?;
    whole(tx, place, &found, row)
}

pub(super) fn export(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    after: &str,
    limit: usize,
) -> Result<Vec<StoredDocument>, StoreError> {
    let found = find(tx, place.collection)?;
    let mut statement = tx.prepare_cached(
        "SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![found.id, after, limit as i64], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    rows.map(|row| whole(tx, place, &found, row?)).collect()
}

fn whole(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    found: &Found,
    (number, id, metadata): (i64, String, String),
) -> Result<StoredDocument, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT c.fingerprint, c.occurrence, c.text, c.byte_from, c.byte_to, c.char_from, c.char_to, v.vector,
                c.headings
         FROM chunks c JOIN vectors v ON v.chunk = c.id AND v.generation = ?2
         WHERE c.document = ?1 ORDER BY c.ordinal",
    )?;
    let space = &found.view.binding.space;
    let rows = statement.query_map([number, found.live], |row| {
        let key = ChunkKey { fingerprint: row.get(0)?, occurrence: row.get(1)? };
        Ok(StoredChunk {
            id: vector_id(place, &id, key, space),
            text: row.get(2)?,
            span: span(row, 3)?,
            headings: headings(row, 8)?,
            vector: floats(row.get_ref(7)?.as_blob()?),
        })
    })?;
    let chunks = rows.collect::<Result<_, _>>()?;
    Ok(StoredDocument { metadata: read_metadata(&metadata)?, chunks, id })
}

/// A vector as it stands in the database.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
