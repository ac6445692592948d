//! Upsert and delete of documents. A document is compared with its stored version: equal chunks stay, new chunks are
//! added, and missing chunks are removed.

use std::collections::HashMap;

use embeddery_core::SpaceId;
use rusqlite::{OptionalExtension as _, Transaction, params, types::Value as Sql};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    collections::{CollectionRow, find, metadata_from_json, metadata_to_json},
    filter,
    read::DocumentRow,
    tombstones,
};
use crate::{
    CheckedDocument, ChunkKey, DeleteTarget, Document, DocumentChunk, StoreError, TextSpan, UpsertResult,
    check_vector,
    filter::visible_values,
    fingerprints,
    json_numbers::number_tokens,
    words::{collection_prefix, index_words},
};

/// Stores documents, see [`VectorStore::upsert`](crate::VectorStore::upsert).
pub(super) fn upsert(
    tx: &Transaction<'_>,
    name: &str,
    space: Option<&SpaceId>,
    documents: &[CheckedDocument],
) -> Result<UpsertResult, StoreError> {
    let collection = find(tx, name)?;
    let binding = &collection.view.binding;
    if let Some(space) = space.filter(|space| **space != binding.space) {
        return Err(StoreError::space_mismatch(name, &binding.space, space));
    }
    let mut result = UpsertResult::default();
    let (mut new_documents, mut last_vector) = (0, 0);
    let prefix = collection_prefix(collection.id);
    for document in documents {
        let (id, is_new) = match write_document(tx, &collection, document)? {
            DocumentWrite::Written { id, is_new } => (id, is_new),
            DocumentWrite::Superseded(by) => {
                result.superseded.push((document.id.clone(), by));
                continue;
            }
        };
        new_documents += u64::from(is_new);
        let mut stored = if is_new { HashMap::new() } else { stored_chunks(tx, id)? };
        let keys = fingerprints(document.chunks.iter().map(|chunk| chunk.text.as_str()));
        for (ordinal, (chunk, key)) in document.chunks.iter().zip(keys).enumerate() {
            let position = ChunkPosition::new(ordinal, chunk);
            if let Some(before) = stored.remove(&key) {
                if before.position != position {
                    move_chunk(tx, before.id, &position)?;
                }
                result.kept += 1;
                continue;
            }
            let Some(vector) = &chunk.vector else {
                return Err(StoreError::vector_missing(&document.id));
            };
            check_vector(vector, binding.dim)?;
            let chunk_id = add_chunk(tx, id, key, &position, &chunk.text)?;
            add_words(tx, chunk_id, &prefix, &chunk.text)?;
            last_vector = add_vector(tx, collection.active, id, chunk_id, vector)?;
            result.added += 1;
        }
        for removed in stored.into_values() {
            remove_chunk(tx, &collection, removed.id)?;
            result.removed += 1;
        }
    }
    tx.prepare_cached("UPDATE collections SET documents = documents + ?2 WHERE id = ?1")?
        .execute(params![collection.id, new_documents])?;
    count_added(tx, collection.active, result.added, last_vector)?;
    Ok(result)
}

/// Adds new vectors to the counts of a generation.
pub(super) fn count_added(
    tx: &Transaction<'_>,
    generation: i64,
    added: u64,
    last_vector: i64,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE generations SET vectors = vectors + ?2, last_vector = max(last_vector, ?3) WHERE id = ?1",
    )?
    .execute(params![generation, added, last_vector])?;
    Ok(())
}

/// Result of writing the row of a document.
enum DocumentWrite {
    /// The row was inserted or updated.
    Written { id: i64, is_new: bool },
    /// Nothing was written, because this later submission wrote or deleted the document.
    Superseded(Uuid),
}

/// Inserts or updates the row of a document, unless it is superseded.
fn write_document(
    tx: &Transaction<'_>,
    collection: &CollectionRow,
    document: &Document,
) -> Result<DocumentWrite, StoreError> {
    if let Some(submission) = document.submission
        && let Some(deletion) = tombstones::latest(tx, &collection.view.name, &document.id)?
        && deletion > submission
    {
        return Ok(DocumentWrite::Superseded(deletion));
    }
    let before = tx
        .prepare_cached("SELECT id, metadata, submission FROM documents WHERE collection = ?1 AND name = ?2")?
        .query_row(params![collection.id, document.id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<Uuid>>(2)?))
        })
        .optional()?;
    let metadata = metadata_to_json(&document.metadata);
    let submission = document.submission.unwrap_or_else(Uuid::now_v7);
    match before {
        None => {
            tx.prepare_cached(
                "INSERT INTO documents (collection, name, metadata, submission) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![collection.id, document.id, metadata, submission])?;
            let id = tx.last_insert_rowid();
            add_attributes(tx, collection.id, id, &document.metadata)?;
            Ok(DocumentWrite::Written { id, is_new: true })
        }
        Some((_, _, Some(last))) if document.submission.is_some_and(|submission| last > submission) => {
            Ok(DocumentWrite::Superseded(last))
        }
        Some((id, before, last)) => {
            if before != metadata {
                remove_attributes(tx, collection.id, id, &metadata_from_json(&before)?)?;
                add_attributes(tx, collection.id, id, &document.metadata)?;
            }
            tx.prepare_cached("UPDATE documents SET metadata = ?2, submission = ?3 WHERE id = ?1")?
                .execute(params![id, metadata, last.max(Some(submission))])?;
            Ok(DocumentWrite::Written { id, is_new: false })
        }
    }
}

/// Returns the keys and values of `attributes` for metadata.
fn attributes(metadata: &Map<String, Value>) -> impl Iterator<Item = (String, Sql)> {
    visible_values(metadata).map(|(field, scalar)| filter::attribute(field, scalar))
}

/// Computes the attributes of all documents again from their metadata. Earlier versions stored integers as floats, which
/// are exact up to 2^53, and the elements of lists in lists.
pub(super) fn derive_attributes(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut documents = tx.prepare("SELECT id, collection, metadata FROM documents")?;
    let mut rows = documents.query([])?;
    let mut differs = false;
    while let Some(row) = rows.next()?.filter(|_| !differs) {
        differs = may_have_other_attributes(row.get_ref(2)?.as_str()?);
    }
    drop(rows);
    if !differs {
        return Ok(());
    }
    tx.execute("DELETE FROM attributes", [])?;
    let mut rows = documents.query([])?;
    while let Some(row) = rows.next()? {
        // Metadata that cannot be read has no attributes, as for a filter that does not match.
        if let Ok(metadata) = serde_json::from_str(row.get_ref(2)?.as_str()?) {
            add_attributes(tx, row.get(1)?, row.get(0)?, &metadata)?;
        }
    }
    Ok(())
}

/// Whether earlier versions may have derived other attributes from metadata: it has a number of at least 16 digits or
/// with an exponent, or a list in a list. The answer may be true without a reason.
fn may_have_other_attributes(metadata: &str) -> bool {
    let large = |number: std::ops::Range<usize>| number.len() >= 16 || metadata[number].contains(['e', 'E']);
    metadata.contains("[[") || metadata.contains(",[") || number_tokens(metadata).any(large)
}

fn add_attributes(
    tx: &Transaction<'_>,
    collection: i64,
    document: i64,
    metadata: &Map<String, Value>,
) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO attributes (collection, key, value, document) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (key, value) in attributes(metadata) {
        insert.execute(params![collection, key, value, document])?;
    }
    Ok(())
}

fn remove_attributes(
    tx: &Transaction<'_>,
    collection: i64,
    document: i64,
    metadata: &Map<String, Value>,
) -> Result<(), StoreError> {
    let mut delete = tx.prepare_cached(
        "DELETE FROM attributes WHERE collection = ?1 AND key = ?2 AND value = ?3 AND document = ?4",
    )?;
    for (key, value) in attributes(metadata) {
        delete.execute(params![collection, key, value, document])?;
    }
    Ok(())
}

/// Position of a chunk: among the chunks, in the text, and below its headings.
#[derive(PartialEq)]
struct ChunkPosition {
    ordinal: i64,
    span: TextSpan,
    /// Headings as their column holds them: a JSON list, or NULL for none.
    headings: Option<String>,
}

impl ChunkPosition {
    fn new(ordinal: usize, chunk: &DocumentChunk) -> Self {
        let headings =
            (!chunk.headings.is_empty()).then(|| Value::from(chunk.headings.as_slice()).to_string());
        Self { ordinal: ordinal as i64, span: chunk.span, headings }
    }
}

/// Reads the headings of a chunk.
pub(super) fn headings_from_row(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// A stored chunk of a document.
struct ChunkRow {
    id: i64,
    position: ChunkPosition,
}

/// Reads the chunks of a document by their keys.
fn stored_chunks(tx: &Transaction<'_>, document: i64) -> Result<HashMap<ChunkKey, ChunkRow>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT id, fingerprint, occurrence, ordinal, byte_from, byte_to, char_from, char_to, headings
         FROM chunks WHERE document = ?1",
    )?;
    let rows = statement.query_map([document], |row| {
        let key = ChunkKey { fingerprint: row.get(1)?, occurrence: row.get(2)? };
        let position =
            ChunkPosition { ordinal: row.get(3)?, span: span_from_row(row, 4)?, headings: row.get(8)? };
        Ok((key, ChunkRow { id: row.get(0)?, position }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads a span from four columns, of which `first` is the first.
pub(super) fn span_from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<TextSpan> {
    Ok(TextSpan {
        bytes: (row.get(first)?, row.get(first + 1)?),
        characters: (row.get(first + 2)?, row.get(first + 3)?),
    })
}

fn move_chunk(tx: &Transaction<'_>, id: i64, position: &ChunkPosition) -> Result<(), StoreError> {
    let ChunkPosition { ordinal, span, headings } = position;
    let ((byte_from, byte_to), (char_from, char_to)) = (span.bytes, span.characters);
    tx.prepare_cached(
        "UPDATE chunks SET ordinal = ?2, byte_from = ?3, byte_to = ?4, char_from = ?5, char_to = ?6, headings = ?7
         WHERE id = ?1",
    )?
    .execute(params![id, ordinal, byte_from, byte_to, char_from, char_to, headings])?;
    Ok(())
}

/// Adds a chunk and returns its id.
fn add_chunk(
    tx: &Transaction<'_>,
    document: i64,
    key: ChunkKey,
    position: &ChunkPosition,
    text: &str,
) -> Result<i64, StoreError> {
    let ChunkPosition { ordinal, span, headings } = position;
    tx.prepare_cached(
        "INSERT INTO chunks
         (document, ordinal, fingerprint, occurrence, byte_from, byte_to, char_from, char_to, headings, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        document,
        ordinal,
        key.fingerprint,
        key.occurrence,
        span.bytes.0,
        span.bytes.1,
        span.characters.0,
        span.characters.1,
        headings,
        text
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Adds the words of a chunk to the full-text index.
fn add_words(tx: &Transaction<'_>, chunk: i64, prefix: &str, text: &str) -> rusqlite::Result<()> {
    let indexed = index_words(prefix, text);
    tx.prepare_cached("INSERT INTO words (rowid, tokens, spellings) VALUES (?1, ?2, ?3)")?
        .execute(params![chunk, indexed.words, indexed.spellings])?;
    Ok(())
}

/// Fills the full-text index, which is empty, with the words of all chunks.
pub(super) fn index_all_words(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut chunks = tx.prepare(
        "SELECT c.id, d.collection, c.text FROM chunks c JOIN documents d ON d.id = c.document ORDER BY c.id",
    )?;
    let mut rows = chunks.query([])?;
    while let Some(row) = rows.next()? {
        add_words(tx, row.get(0)?, &collection_prefix(row.get(1)?), row.get_ref(2)?.as_str()?)?;
    }
    Ok(())
}

/// Adds a vector and returns its id.
pub(super) fn add_vector(
    tx: &Transaction<'_>,
    generation: i64,
    document: i64,
    chunk: i64,
    vector: &[f32],
) -> Result<i64, StoreError> {
    let little_endian: Vec<u8>;
    let bytes: &[u8] = if cfg!(target_endian = "little") {
        bytemuck::cast_slice(vector)
    } else {
        little_endian = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        &little_endian
    };
    tx.prepare_cached("INSERT INTO vectors (generation, document, chunk, vector) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![generation, document, chunk, bytes])?;
    Ok(tx.last_insert_rowid())
}

/// Removes a chunk with its words and its vectors in all generations.
fn remove_chunk(tx: &Transaction<'_>, collection: &CollectionRow, chunk: i64) -> Result<(), StoreError> {
    for generation in collection.generations() {
        let removed = tx
            .prepare_cached("DELETE FROM vectors WHERE chunk = ?1 AND generation = ?2")?
            .execute(params![chunk, generation])?;
        tx.prepare_cached(
            "UPDATE generations SET vectors = vectors - ?2, removals = removals + ?2 WHERE id = ?1",
        )?
        .execute(params![generation, removed])?;
    }
    tx.prepare_cached("DELETE FROM words WHERE rowid = ?1")?.execute([chunk])?;
    tx.prepare_cached("DELETE FROM chunks WHERE id = ?1")?.execute([chunk])?;
    Ok(())
}

/// Deletes documents, records tombstones for them, and returns how many were deleted.
pub(super) fn delete(tx: &Transaction<'_>, name: &str, target: DeleteTarget<'_>) -> Result<u64, StoreError> {
    let collection = find(tx, name)?;
    let documents: Vec<DocumentRow> = match target {
        DeleteTarget::Ids(ids) => {
            let mut statement = tx.prepare_cached(
                "SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name = ?2",
            )?;
            let mut rows = Vec::new();
            for id in ids {
                rows.extend(
                    statement.query_row(params![collection.id, id], DocumentRow::from_row).optional()?,
                );
            }
            rows
        }
        DeleteTarget::All => {
            let mut statement =
                tx.prepare_cached("SELECT id, name, metadata FROM documents WHERE collection = ?1")?;
            let rows = statement.query_map([collection.id], DocumentRow::from_row)?;
            rows.collect::<Result<_, _>>()?
        }
        DeleteTarget::Where(filter) => {
            let (condition, values) = filter::compile(filter, collection.id);
            let sql = format!("SELECT id, name, metadata FROM documents d WHERE {condition}");
            let mut statement = tx.prepare(&sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), DocumentRow::from_row)?;
            rows.collect::<Result<_, _>>()?
        }
    };
    let mut deleted = 0;
    tombstones::record(tx, name, documents.iter().map(|document| document.name.as_str()))?;
    for document in documents {
        for chunk in stored_chunks(tx, document.key)?.into_values() {
            remove_chunk(tx, &collection, chunk.id)?;
        }
        remove_attributes(tx, collection.id, document.key, &metadata_from_json(&document.metadata)?)?;
        // An id may be given twice; it is counted once.
        deleted += tx.prepare_cached("DELETE FROM documents WHERE id = ?1")?.execute([document.key])? as u64;
    }
    tx.execute(
        "UPDATE collections SET documents = documents - ?2 WHERE id = ?1",
        params![collection.id, deleted],
    )?;
    Ok(deleted)
}
