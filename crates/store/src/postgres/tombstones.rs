//! Tombstones: records of deletions. A job that was submitted before a deletion must not restore what was deleted.
//! Tombstones refer to a collection by name, because the collection itself may be deleted. They expire, see
//! [`tombstone_retention::tombstone_horizon`].

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use crate::{CollectionRef, StoreError, tombstone_retention};

/// Stands for the collection among the ids of its documents, which are never empty.
pub(super) const WHOLE_COLLECTION: &str = "";

/// Records that documents of a collection, or the [`WHOLE_COLLECTION`], were deleted now.
pub(super) async fn record(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    documents: &[&str],
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO embeddery.deletions (tenant, collection, document, submission)
         SELECT $1, $2, document, $4 FROM unnest($3::text[]) AS gone (document)
         ON CONFLICT (tenant, collection, document) DO UPDATE SET submission = excluded.submission",
        &[&collection_ref.tenant, &collection_ref.collection, &documents, &Uuid::now_v7()],
    )
    .await?;
    tx.execute(
        "DELETE FROM embeddery.deletions WHERE tenant = $1 AND submission < $2",
        &[&collection_ref.tenant, &tombstone_retention::tombstone_horizon()],
    )
    .await?;
    Ok(())
}

/// Reads the last deletions of these documents and of their collection.
pub(super) async fn latest(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    documents: &[&str],
) -> Result<Tombstones, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT document, submission FROM embeddery.deletions
             WHERE tenant = $1 AND collection = $2 AND (document = ANY($3) OR document = '')",
        )
        .await?;
    let rows =
        tx.query(&statement, &[&collection_ref.tenant, &collection_ref.collection, &documents]).await?;
    Ok(Tombstones(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
}

/// Submission ids of deletions, by document id.
pub(super) struct Tombstones(HashMap<String, Uuid>);

impl Tombstones {
    /// Returns the deletion of a document if it came after the submission. `None` as the submission comes after all.
    pub(super) fn after(&self, submission: Option<Uuid>, document: &str) -> Option<Uuid> {
        let submission = submission?;
        let last = self.0.get(document).max(self.0.get(WHOLE_COLLECTION)).copied();
        last.filter(|deletion| *deletion > submission)
    }
}
