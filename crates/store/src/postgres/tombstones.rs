//! What was deleted, and when: a job that was submitted before must not bring it back. A deletion is remembered for as
//! long as [`tombstone::tombstone_horizon`] says, by the collection's name, because the collection itself may be gone.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use crate::{CollectionRef, StoreError, tombstone};

/// The collection itself, among the names of its documents, which are not empty.
pub(super) const ALL: &str = "";

/// Remembers that a collection was deleted, or those of its documents.
pub(super) async fn remember(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    documents: &[&str],
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO embeddery.deletions (tenant, collection, document, submission)
         SELECT $1, $2, document, $4 FROM unnest($3::text[]) AS gone (document)
         ON CONFLICT (tenant, collection, document) DO UPDATE SET submission = excluded.submission",
        &[&place.tenant, &place.collection, &documents, &Uuid::now_v7()],
    )
    .await?;
    tx.execute(
        "DELETE FROM embeddery.deletions WHERE tenant = $1 AND submission < $2",
        &[&place.tenant, &tombstone::tombstone_horizon()],
    )
    .await?;
    Ok(())
}

/// The last deletions of these documents, alone or with their collection.
pub(super) async fn last(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    documents: &[&str],
) -> Result<Deletions, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT document, submission FROM embeddery.deletions
             WHERE tenant = $1 AND collection = $2 AND (document = ANY($3) OR document = '')",
        )
        .await?;
    let rows = tx.query(&statement, &[&place.tenant, &place.collection, &documents]).await?;
    Ok(Deletions(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
}

/// By document.
pub(super) struct Deletions(HashMap<String, Uuid>);

impl Deletions {
    /// The deletion of this document that came after a submission.
    pub(super) fn after(&self, submission: Option<Uuid>, document: &str) -> Option<Uuid> {
        let ours = submission?;
        let last = self.0.get(document).max(self.0.get(ALL)).copied();
        last.filter(|later| *later > ours)
    }
}
