//! What was deleted, and when: a job that was submitted before must not bring it back. A deletion is remembered for as
//! long as [`tombstone::tombstone_horizon`] says, by the collection's name, because the collection itself may be gone.

use rusqlite::{Transaction, params};
use uuid::Uuid;

use crate::{StoreError, tombstone};

/// Remembers that a collection was deleted, or those of its documents.
pub(super) fn remember<'a>(
    tx: &Transaction<'_>,
    collection: &str,
    documents: impl Iterator<Item = &'a str>,
) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR REPLACE INTO deletions (collection, document, submission) VALUES (?1, ?2, ?3)",
    )?;
    let now = Uuid::now_v7();
    for document in documents {
        insert.execute(params![collection, document, now])?;
    }
    tx.prepare_cached("DELETE FROM deletions WHERE submission < ?1")?
        .execute([tombstone::tombstone_horizon()])?;
    Ok(())
}

/// The collection itself, among the names of its documents, which are not empty.
pub(super) const ALL: &str = "";

/// The last deletion of a document, alone or with its collection.
pub(super) fn last(
    tx: &Transaction<'_>,
    collection: &str,
    document: &str,
) -> Result<Option<Uuid>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT max(submission) FROM deletions WHERE collection = ?1 AND document IN ('', ?2)",
    )?;
    Ok(statement.query_row([collection, document], |row| row.get(0))?)
}
