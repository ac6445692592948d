//! Documents in and out. A document is compared with what is stored of it: equal chunks are left alone, new ones
//! added, those that are no more removed.

use std::collections::HashMap;

use embeddery_core::SpaceId;
use rusqlite::{OptionalExtension as _, Transaction, params, types::Value as Sql};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    collections::{Found, find, read_metadata, write_metadata},
    filter, tombstones,
};
use crate::{
    DeleteTarget, Document, Scalar, Span, StoreError, StoreErrorKind, UpsertResult, check_vector,
    fingerprints, types::ChunkKey,
};

pub(super) fn upsert(
    tx: &Transaction<'_>,
    name: &str,
    space: Option<&SpaceId>,
    documents: &[Document],
) -> Result<UpsertResult, StoreError> {
    let found = find(tx, name)?;
    let binding = &found.view.binding;
    if let Some(space) = space.filter(|space| **space != binding.space) {
        return Err(StoreError::space_mismatch(name, &binding.space, space));
    }
    let mut written = UpsertResult::default();
    let (mut new_documents, mut last_vector) = (0, 0);
    for document in documents {
        let (id, is_new) = match put_document(tx, &found, document)? {
            Put::At { id, is_new } => (id, is_new),
            Put::Overtaken(by) => {
                written.overtaken.push((document.id.clone(), by));
                continue;
            }
        };
        new_documents += u64::from(is_new);
        let mut stored = if is_new { HashMap::new() } else { stored_chunks(tx, id)? };
        let keys = fingerprints(document.chunks.iter().map(|chunk| chunk.text.as_str()));
        for (ordinal, (chunk, key)) in document.chunks.iter().zip(keys).enumerate() {
            let place = (ordinal as i64, chunk.span, headings_text(&chunk.headings));
            if let Some((chunk_id, before)) = stored.remove(&key) {
                if before != place {
                    move_chunk(tx, chunk_id, &place)?;
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
            let chunk_id = add_chunk(tx, id, (key, &place, &chunk.text))?;
            last_vector = add_vector(tx, (found.live, id, chunk_id), vector)?;
            written.added += 1;
        }
        for (chunk_id, _) in stored.into_values() {
            remove_chunk(tx, &found, chunk_id)?;
            written.removed += 1;
        }
    }
    tx.prepare_cached("UPDATE collections SET documents = documents + ?2 WHERE id = ?1")?
        .execute(params![found.id, new_documents])?;
    count_added(tx, found.live, written.added, last_vector)?;
    Ok(written)
}

/// Adds vectors to a generation's counts.
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

/// What became of a document's row.
enum Put {
    At {
        id: i64,
        is_new: bool,
    },
    /// It is of this later submission.
    Overtaken(Uuid),
}

fn put_document(tx: &Transaction<'_>, found: &Found, document: &Document) -> Result<Put, StoreError> {
    if let Some(ours) = document.submission
        && let Some(later) = tombstones::last(tx, &found.view.name, &document.id)?
        && later > ours
    {
        return Ok(Put::Overtaken(later));
    }
    let before = tx
        .prepare_cached("SELECT id, metadata, submission FROM documents WHERE collection = ?1 AND name = ?2")?
        .query_row(params![found.id, document.id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<Uuid>>(2)?))
        })
        .optional()?;
    let metadata = write_metadata(&document.metadata);
    let submission = document.submission.unwrap_or_else(Uuid::now_v7);
    match before {
        None => {
            tx.prepare_cached(
                "INSERT INTO documents (collection, name, metadata, submission) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![found.id, document.id, metadata, submission])?;
            let id = tx.last_insert_rowid();
            add_attributes(tx, found.id, id, &document.metadata)?;
            Ok(Put::At { id, is_new: true })
        }
        Some((_, _, Some(later))) if document.submission.is_some_and(|ours| later > ours) => {
            Ok(Put::Overtaken(later))
        }
        Some((id, before, last)) => {
            if before != metadata {
                remove_attributes(tx, found.id, id, &read_metadata(&before)?)?;
                add_attributes(tx, found.id, id, &document.metadata)?;
            }
            tx.prepare_cached("UPDATE documents SET metadata = ?2, submission = ?3 WHERE id = ?1")?
                .execute(params![id, metadata, last.max(Some(submission))])?;
            Ok(Put::At { id, is_new: false })
        }
    }
}

/// What filters see of metadata: keys with their type's letter, and values. Lists are their elements; objects and
/// nulls are not seen.
fn attributes(metadata: &Map<String, Value>) -> Vec<(String, Sql)> {
    let mut seen = Vec::new();
    for (field, value) in metadata {
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            match value {
                Value::Array(items) => pending.extend(items),
                value => seen.extend(Scalar::of(value).map(|scalar| filter::attribute(field, scalar))),
            }
        }
    }
    seen
}

fn add_attributes(
    tx: &Transaction<'_>,
    collection: i64,
    document: i64,
    metadata: &Map<String, Value>,
) -> Result<(), StoreError> {
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

/// A chunk's place among its neighbours, in the text, and below its headings, as they stand in their column.
type ChunkPlace = (i64, Span, Option<String>);

/// Headings as their column has them.
fn headings_text(headings: &[String]) -> Option<String> {
    (!headings.is_empty()).then(|| Value::from(headings).to_string())
}

/// Headings that stand in a column.
pub(super) fn headings(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

fn stored_chunks(
    tx: &Transaction<'_>,
    document: i64,
) -> Result<HashMap<ChunkKey, (i64, ChunkPlace)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT id, fingerprint, occurrence, ordinal, byte_from, byte_to, char_from, char_to, headings
         FROM chunks WHERE document = ?1",
    )?;
    let rows = statement.query_map([document], |row| {
        let key = ChunkKey { fingerprint: row.get(1)?, occurrence: row.get(2)? };
        Ok((key, (row.get(0)?, (row.get(3)?, span(row, 4)?, row.get(8)?))))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A span that stands in four columns.
pub(super) fn span(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Span> {
    Ok(Span {
        bytes: (row.get(first)?, row.get(first + 1)?),
        characters: (row.get(first + 2)?, row.get(first + 3)?),
    })
}

fn move_chunk(
    tx: &Transaction<'_>,
    id: i64,
    (ordinal, span, headings): &ChunkPlace,
) -> Result<(), StoreError> {
    let ((from, to), (first, last)) = (span.bytes, span.characters);
    tx.prepare_cached(
        "UPDATE chunks SET ordinal = ?2, byte_from = ?3, byte_to = ?4, char_from = ?5, char_to = ?6, headings = ?7
         WHERE id = ?1",
    )?
    .execute(params![id, ordinal, from, to, first, last, headings])?;
    Ok(())
}

fn add_chunk(
    tx: &Transaction<'_>,
    document: i64,
    (key, (ordinal, span, headings), text): (ChunkKey, &ChunkPlace, &str),
) -> Result<i64, StoreError> {
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
    let id = tx.last_insert_rowid();
    tx.prepare_cached("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?.execute(params![id, text])?;
    Ok(id)
}

/// Adds a vector and returns its id.
pub(super) fn add_vector(
    tx: &Transaction<'_>,
    (generation, document, chunk): (i64, i64, i64),
    vector: &[f32],
) -> Result<i64, StoreError> {
    let little: Vec<u8>;
    let bytes: &[u8] = if cfg!(target_endian = "little") {
        bytemuck::cast_slice(vector)
    } else {
        little = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        &little
    };
    tx.prepare_cached("INSERT INTO vectors (generation, document, chunk, vector) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![generation, document, chunk, bytes])?;
    Ok(tx.last_insert_rowid())
}

fn remove_chunk(tx: &Transaction<'_>, found: &Found, chunk: i64) -> Result<(), StoreError> {
    for generation in found.generations() {
        let gone = tx
            .prepare_cached("DELETE FROM vectors WHERE chunk = ?1 AND generation = ?2")?
            .execute(params![chunk, generation])?;
        tx.prepare_cached(
            "UPDATE generations SET vectors = vectors - ?2, removals = removals + ?2 WHERE id = ?1",
        )?
        .execute(params![generation, gone])?;
    }
    // The index is told the text it is to forget.
    tx.prepare_cached(
        "INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM chunks WHERE id = ?1",
    )?
    .execute([chunk])?;
    tx.prepare_cached("DELETE FROM chunks WHERE id = ?1")?.execute([chunk])?;
    Ok(())
}

pub(super) fn delete(tx: &Transaction<'_>, name: &str, removal: DeleteTarget<'_>) -> Result<u64, StoreError> {
    let found = find(tx, name)?;
    let documents: Vec<(i64, String, String)> = match removal {
        DeleteTarget::Ids(ids) => {
            let mut statement = tx.prepare_cached(
                "SELECT id, name, metadata FROM documents WHERE collection = ?1 AND name = ?2",
            )?;
            let mut rows = Vec::new();
            for id in ids {
                rows.extend(
                    statement
                        .query_row(params![found.id, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                        .optional()?,
                );
            }
            rows
        }
        DeleteTarget::Where(condition) => {
            let (condition, values) = filter::compile(condition, found.id);
            let sql = format!("SELECT id, name, metadata FROM documents d WHERE {condition}");
            let mut statement = tx.prepare(&sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect::<Result<_, _>>()?
        }
    };
    let mut gone = 0;
    tombstones::remember(tx, name, documents.iter().map(|(_, document, _)| document.as_str()))?;
    for (document, _, metadata) in documents {
        for (chunk, _) in stored_chunks(tx, document)?.into_values() {
            remove_chunk(tx, &found, chunk)?;
        }
        remove_attributes(tx, found.id, document, &read_metadata(&metadata)?)?;
        // An id that was named twice is gone once.
        gone += tx.prepare_cached("DELETE FROM documents WHERE id = ?1")?.execute([document])? as u64;
    }
    tx.execute("UPDATE collections SET documents = documents - ?2 WHERE id = ?1", params![found.id, gone])?;
    Ok(gone)
}
