//! Collections: made, found, listed, dropped.

use deadpool_postgres::Transaction;
use embeddery_core::SpaceId;
use serde_json::{Map, Value};
use tokio_postgres::{Row, error::SqlState};

use super::{
    connection::{Connections, new_ids},
    schema::{LOCK, MAX_INDEXED_DIMENSIONS},
    tombstones,
};
use crate::{
    Collection, CollectionRef, Counts, DeletionReceipt, Migration, ModelBinding, NewCollection, Stats,
    StoreError, check_name,
};

/// A collection with its numbers in the database.
pub(super) struct Found {
    pub(super) id: i64,
    pub(super) live: i64,
    pub(super) building: Option<i64>,
    pub(super) view: Collection,
}

/// Whether others may change a collection's generations while the transaction runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LockMode {
    /// They may.
    No,
    /// They may not, but they may write documents.
    Shared,
    /// They may do neither.
    Alone,
}

const SELECT: &str = "
    SELECT c.id, c.live, c.building, c.name, c.metadata,
           l.provider, l.model, l.space, l.dim, l.cut,
           b.provider, b.model, b.space, b.dim, b.cut
    FROM embeddery.collections c JOIN embeddery.generations l ON l.id = c.live
    LEFT JOIN embeddery.generations b ON b.id = c.building";

pub(super) async fn create(
    connections: &Connections,
    place: CollectionRef<'_>,
    new: NewCollection,
) -> Result<Collection, StoreError> {
    check_name(place.collection)?;
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let last = tombstones::last(&tx, place, &[]).await?;
    if last.after(new.submission, tombstones::ALL).is_some() {
        return Err(StoreError::no_collection(place.collection));
    }
    let ids = new_ids(&tx, 2).await?;
    let inserted = tx
        .execute(
            "INSERT INTO embeddery.collections (id, tenant, name, metadata, live) VALUES ($1, $2, $3, $4, $5)",
            &[&ids[0], &place.tenant, &place.collection, &Value::Object(new.metadata), &ids[1]],
        )
        .await;
    if let Err(error) = inserted {
        let exists = error.code() == Some(&SqlState::UNIQUE_VIOLATION);
        return Err(if exists { StoreError::exists(place.collection) } else { error.into() });
    }
    add_generation(&tx, (place.tenant, ids[0], ids[1]), &new.binding).await?;
    let found = find(&tx, place, LockMode::No).await?;
    tx.commit().await?;
    Ok(found.view)
}

/// Adds a generation, and the index for vectors of its length where there is none yet.
pub(super) async fn add_generation(
    tx: &Transaction<'_>,
    (tenant, collection, id): (&str, i64, i64),
    binding: &ModelBinding,
) -> Result<(), StoreError> {
    let ModelBinding { provider, model, space, dim, custom_dimensions: cut } = binding;
    tx.execute(
        "INSERT INTO embeddery.generations (id, tenant, collection, provider, model, space, dim, cut)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[&id, &tenant, &collection, provider, model, &space.as_str(), &(*dim as i32), cut],
    )
    .await?;
    let index = format!("vectors_near_{dim}");
    let there = tx
        .query_opt("SELECT 1 FROM pg_indexes WHERE schemaname = 'embeddery' AND indexname = $1", &[&index])
        .await?;
    if *dim <= MAX_INDEXED_DIMENSIONS && there.is_none() {
        // Of a length that no vector has yet: nothing to build, only a look over the table.
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
    place: CollectionRef<'_>,
    hold: LockMode,
) -> Result<Found, StoreError> {
    let lock = match hold {
        LockMode::No => "",
        LockMode::Shared => " FOR SHARE OF c",
        LockMode::Alone => " FOR UPDATE OF c",
    };
    let sql = format!("{SELECT} WHERE c.tenant = $1 AND c.name = $2{lock}");
    let statement = tx.prepare_cached(&sql).await?;
    let row = tx.query_opt(&statement, &[&place.tenant, &place.collection]).await;
    match row {
        // No collection has a name that the database cannot hold.
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("22")) => {
            Err(StoreError::no_collection(place.collection))
        }
        row => row?.as_ref().map(found).ok_or_else(|| StoreError::no_collection(place.collection)),
    }
}

pub(super) async fn get(
    connections: &Connections,
    place: CollectionRef<'_>,
) -> Result<Collection, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    Ok(find(&tx, place, LockMode::No).await?.view)
}

pub(super) async fn list(connections: &Connections, tenant: &str) -> Result<Vec<Collection>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, tenant).await?;
    let rows = tx.query(&format!("{SELECT} WHERE c.tenant = $1 ORDER BY c.name"), &[&tenant]).await?;
    Ok(rows.iter().map(|row| found(row).view).collect())
}

pub(super) async fn stats(connections: &Connections, place: CollectionRef<'_>) -> Result<Stats, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::No).await?;
    let row = tx
        .query_one(
            "SELECT (SELECT count(*) FROM embeddery.documents WHERE collection = $1),
                    (SELECT count(*) FROM embeddery.vectors WHERE generation = $2),
                    (SELECT count(*) FROM embeddery.vectors WHERE generation = $3)",
            &[&found.id, &found.live, &found.building],
        )
        .await?;
    let count = |column| row.get::<_, i64>(column) as u64;
    let counts = Counts { documents: count(0), vectors: count(1) };
    Ok(Stats { collection: found.view, counts, migrated: count(2) })
}

pub(super) async fn drop(connections: &Connections, place: CollectionRef<'_>) -> Result<(), StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::Alone).await?;
    tx.execute("DELETE FROM embeddery.collections WHERE id = $1", &[&found.id]).await?;
    tombstones::remember(&tx, place, &[tombstones::ALL]).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn delete_tenant(
    connections: &Connections,
    tenant: &str,
) -> Result<DeletionReceipt, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, tenant).await?;
    // Nobody writes between the count and the end.
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
    // The tenant's jobs are gone, too, so that nothing can come back.
    tx.execute("DELETE FROM embeddery.deletions WHERE tenant = $1", &[&tenant]).await?;
    tx.commit().await?;
    let count = |column| row.get::<_, i64>(column) as u64;
    Ok(DeletionReceipt { collections, documents: count(0), vectors: count(1) })
}

fn found(row: &Row) -> Found {
    let binding = |first: usize| ModelBinding {
        provider: row.get(first),
        model: row.get(first + 1),
        space: SpaceId::new(row.get::<_, String>(first + 2)),
        dim: row.get::<_, i32>(first + 3) as usize,
        custom_dimensions: row.get(first + 4),
    };
    let building: Option<i64> = row.get(2);
    let migration = building.map(|generation| Migration { generation, binding: binding(10) });
    let view = Collection { name: row.get(3), binding: binding(5), metadata: object(row.get(4)), migration };
    Found { id: row.get(0), live: row.get(1), building, view }
}

/// Metadata are always an object.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
