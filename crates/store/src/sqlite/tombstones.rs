//! Tombstones: records of deletions. A job that was submitted before a deletion must not restore what was deleted.
//! Tombstones refer to a collection by name, because the collection itself may be deleted. They expire, see
//! [`tombstone_retention::tombstone_horizon`].

use rusqlite::{Transaction, params};
use uuid::Uuid;

use crate::{StoreError, tombstone_retention};

/// Records that documents of a collection, or the [`WHOLE_COLLECTION`], were deleted now.
pub(super) fn record<'a>(
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
        .execute([tombstone_retention::tombstone_horizon()])?;
    Ok(())
}

/// Stands for the collection among the ids of its documents, which are never empty.
pub(super) const WHOLE_COLLECTION: &str = "";

/// Returns the last deletion of a document, by itself or with its collection.
pub(super) fn latest(
    tx: &Transaction<'_>,
    collection: &str,
    document: &str,
) -> Result<Option<Uuid>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT max(submission) FROM deletions WHERE collection = ?1 AND document IN ('', ?2)",
    )?;
    Ok(statement.query_row([collection, document], |row| row.get(0))?)
}
