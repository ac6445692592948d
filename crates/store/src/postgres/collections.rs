//! Create, find, list and delete collections, and delete tenants.

use deadpool_postgres::Transaction;
use embeddery_core::SpaceId;
use tokio_postgres::{Row, error::SqlState};

use super::{
    connection::{Connections, new_ids},
    metadata,
    schema::{LOCK, MAX_INDEXED_DIMENSIONS},
    tombstones::{self, WHOLE_COLLECTION},
};
use crate::{
    Collection, CollectionRef, Counts, DeletionReceipt, Migration, ModelBinding, NewCollection, Stats,
    StoreError, check_name,
};

/// A collection and its keys in the database.
pub(super) struct CollectionRow {
    pub(super) id: i64,
    /// The generation that is searched.
    pub(super) active: i64,
    /// The generation that a migration builds.
    pub(super) building: Option<i64>,
    pub(super) view: Collection,
}

/// Lock that a transaction takes on the row of a collection, against changes of its generations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LockMode {
    /// No lock. Other transactions may change the generations.
    None,
    /// Other transactions may write documents but not change the generations.
    Shared,
    /// Other transactions may do neither.
    Exclusive,
}

const SELECT: &str = "
    SELECT c.id, c.live, c.building, c.name, c.metadata::text,
           l.provider, l.model, l.space, l.dim, l.cut,
           b.provider, b.model, b.space, b.dim, b.cut
    FROM embeddery.collections c JOIN embeddery.generations l ON l.id = c.live
    LEFT JOIN embeddery.generations b ON b.id = c.building";

pub(super) async fn create(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    new: NewCollection,
) -> Result<Collection, StoreError> {
    check_name(collection_ref.collection)?;
    new.check()?;
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let tombstones = tombstones::latest(&tx, collection_ref, &[]).await?;
    if tombstones.after(new.submission, WHOLE_COLLECTION).is_some() {
        return Err(StoreError::no_collection(collection_ref.collection));
    }
    let ids = new_ids(&tx, 2).await?;
    let inserted = tx
        .execute(
            "INSERT INTO embeddery.collections (id, tenant, name, metadata, live)
             VALUES ($1, $2, $3, $4::text::jsonb, $5)",
            &[
                &ids[0],
                &collection_ref.tenant,
                &collection_ref.collection,
                &metadata::to_text(&new.metadata)?,
                &ids[1],
            ],
        )
        .await;
    if let Err(error) = inserted {
        let exists = error.code() == Some(&SqlState::UNIQUE_VIOLATION);
        return Err(if exists {
            StoreError::collection_exists(collection_ref.collection)
        } else {
            error.into()
        });
    }
    add_generation(&tx, collection_ref.tenant, ids[0], ids[1], &new.binding).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    tx.commit().await?;
    Ok(collection.view)
}

/// Adds a generation, and the index over vectors of its dimensions if there is none.
pub(super) async fn add_generation(
    tx: &Transaction<'_>,
    tenant: &str,
    collection: i64,
    id: i64,
    binding: &ModelBinding,
) -> Result<(), StoreError> {
    let ModelBinding { provider, model, space, dim, custom_dimensions } = binding;
    tx.execute(
        "INSERT INTO embeddery.generations (id, tenant, collection, provider, model, space, dim, cut)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[&id, &tenant, &collection, provider, model, &space.as_str(), &(*dim as i32), custom_dimensions],
    )
    .await?;
    let index = format!("vectors_near_{dim}");
    let existing = tx
        .query_opt("SELECT 1 FROM pg_indexes WHERE schemaname = 'embeddery' AND indexname = $1", &[&index])
        .await?;
    if *dim <= MAX_INDEXED_DIMENSIONS && existing.is_none() {
        // No vector of these dimensions exists yet, so the index is empty and its creation only scans the table.
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        tx.batch_execute(&format!(
            "CREATE INDEX IF NOT EXISTS {index} ON embeddery.vectors
             USING hnsw ((embedding::halfvec({dim})) halfvec_cosine_ops) WHERE vector_dims(embedding) = {dim}"
        ))
        .await?;
    }
    Ok(())
}

pub(super) async fn find(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    lock_mode: LockMode,
) -> Result<CollectionRow, StoreError> {
    let lock = match lock_mode {
        LockMode::None => "",
        LockMode::Shared => " FOR SHARE OF c",
        LockMode::Exclusive => " FOR UPDATE OF c",
    };
    let sql = format!("{SELECT} WHERE c.tenant = $1 AND c.name = $2{lock}");
    let statement = tx.prepare_cached(&sql).await?;
    let row = tx.query_opt(&statement, &[&collection_ref.tenant, &collection_ref.collection]).await;
    match row {
        // Class 22, data exception: PostgreSQL cannot store the name, so no collection has it.
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("22")) => {
            Err(StoreError::no_collection(collection_ref.collection))
        }
        row => row?
            .as_ref()
            .map_or_else(|| Err(StoreError::no_collection(collection_ref.collection)), collection_row),
    }
}

pub(super) async fn get(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
) -> Result<Collection, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    Ok(find(&tx, collection_ref, LockMode::None).await?.view)
}

pub(super) async fn list(connections: &Connections, tenant: &str) -> Result<Vec<Collection>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, tenant).await?;
    let rows = tx.query(&format!("{SELECT} WHERE c.tenant = $1 ORDER BY c.name"), &[&tenant]).await?;
    rows.iter().map(|row| Ok(collection_row(row)?.view)).collect()
}

pub(super) async fn stats(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
) -> Result<Stats, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let row = tx
        .query_one(
            "SELECT (SELECT count(*) FROM embeddery.documents WHERE collection = $1),
                    (SELECT count(*) FROM embeddery.vectors WHERE generation = $2),
                    (SELECT count(*) FROM embeddery.vectors WHERE generation = $3)",
            &[&collection.id, &collection.active, &collection.building],
        )
        .await?;
    let count = |column| row.get::<_, i64>(column) as u64;
    let counts = Counts { documents: count(0), vectors: count(1) };
    Ok(Stats { collection: collection.view, counts, migrated: count(2) })
}

pub(super) async fn drop_collection(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
) -> Result<(), StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::Exclusive).await?;
    tx.execute("DELETE FROM embeddery.collections WHERE id = $1", &[&collection.id]).await?;
    tombstones::record(&tx, collection_ref, &[WHOLE_COLLECTION]).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn delete_tenant(
    connections: &Connections,
    tenant: &str,
) -> Result<DeletionReceipt, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, tenant).await?;
    // Locks the collections, so that the counts stay true until the deletion.
    tx.execute("SELECT 1 FROM embeddery.collections WHERE tenant = $1 ORDER BY id FOR UPDATE", &[&tenant])
        .await?;
    let row = tx
        .query_one(
            "SELECT (SELECT count(*) FROM embeddery.documents WHERE tenant = $1),
                    (SELECT count(*) FROM embeddery.vectors WHERE tenant = $1)",
            &[&tenant],
        )
        .await?;
    let collections = tx.execute("DELETE FROM embeddery.collections WHERE tenant = $1", &[&tenant]).await?;
    // The tenant's jobs are deleted, too, so that no tombstone is needed.
    tx.execute("DELETE FROM embeddery.deletions WHERE tenant = $1", &[&tenant]).await?;
    tx.commit().await?;
    let count = |column| row.get::<_, i64>(column) as u64;
    Ok(DeletionReceipt { collections, documents: count(0), vectors: count(1) })
}

fn collection_row(row: &Row) -> Result<CollectionRow, StoreError> {
    let binding = |first: usize| ModelBinding {
        provider: row.get(first),
        model: row.get(first + 1),
        space: SpaceId::new(row.get::<_, String>(first + 2)),
        dim: row.get::<_, i32>(first + 3) as usize,
        custom_dimensions: row.get(first + 4),
    };
    let building: Option<i64> = row.get(2);
    let migration = building.map(|generation| Migration { generation, binding: binding(10) });
    let view = Collection {
        name: row.get(3),
        binding: binding(5),
        metadata: metadata::from_text(row.get(4))?,
        migration,
    };
    Ok(CollectionRow { id: row.get(0), active: row.get(1), building, view })
}
