//! Migration of a collection to another model. It works as in the embedded store.

use deadpool_postgres::Transaction;

use super::{
    collections::{CollectionRow, LockMode, add_generation, find},
    connection::{Connections, new_ids},
    write::{NewVectors, add_vectors, to_half_unit},
};
use crate::{CollectionRef, MissingVector, ModelBinding, StoreError, check_vector};

pub(super) async fn begin_migration(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    to: ModelBinding,
) -> Result<i64, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::Exclusive).await?;
    if collection.view.binding.space == to.space {
        return Err(StoreError::same_space(collection_ref.collection, &to.space));
    }
    if let Some(migration) = &collection.view.migration {
        if migration.binding == to {
            return Ok(migration.generation);
        }
        drop_generation(&tx, migration.generation).await?;
    }
    let generation = new_ids(&tx, 1).await?.remove(0);
    add_generation(&tx, collection_ref.tenant, collection.id, generation, &to).await?;
    tx.execute(
        "UPDATE embeddery.collections SET building = $2 WHERE id = $1",
        &[&collection.id, &generation],
    )
    .await?;
    tx.commit().await?;
    Ok(generation)
}

pub(super) async fn missing_vectors(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find_building(&tx, collection_ref, generation, LockMode::None).await?;
    select_missing(&tx, &collection, generation, limit).await
}

async fn select_missing(
    tx: &Transaction<'_>,
    collection: &CollectionRow,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let rows = tx
        .query(
            "SELECT c.id, c.text FROM embeddery.vectors live JOIN embeddery.chunks c ON c.id = live.chunk
             WHERE live.generation = $1 AND NOT EXISTS
                   (SELECT 1 FROM embeddery.vectors made WHERE made.chunk = c.id AND made.generation = $2)
             LIMIT $3",
            &[&collection.active, &generation, &(limit as i64)],
        )
        .await?;
    Ok(rows.iter().map(|row| MissingVector { chunk: row.get(0), text: row.get(1) }).collect())
}

pub(super) async fn insert_vectors(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    generation: i64,
    vectors: Vec<(i64, Vec<f32>)>,
) -> Result<(), StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find_building(&tx, collection_ref, generation, LockMode::Shared).await?;
    let dim = collection.view.migration.map_or(0, |migration| migration.binding.dim);
    let keys: Vec<i64> = vectors.iter().map(|(chunk, _)| *chunk).collect();
    // The lock keeps the chunks from being deleted before their vectors are stored.
    let rows = tx
        .query("SELECT id, document FROM embeddery.chunks WHERE id = ANY($1) ORDER BY id FOR SHARE", &[&keys])
        .await?;
    let documents: std::collections::HashMap<i64, i64> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut new = NewVectors::default();
    for (chunk, vector) in &vectors {
        check_vector(vector, dim)?;
        if let Some(document) = documents.get(chunk) {
            new.documents.push(*document);
            new.chunks.push(*chunk);
            new.vectors.push(to_half_unit(vector));
        }
    }
    add_vectors(&tx, collection_ref.tenant, generation, &new).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn activate_generation(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    generation: i64,
) -> Result<bool, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, collection_ref.tenant).await?;
    let collection = find_building(&tx, collection_ref, generation, LockMode::Exclusive).await?;
    if !select_missing(&tx, &collection, generation, 1).await?.is_empty() {
        return Ok(false);
    }
    tx.execute(
        "UPDATE embeddery.collections SET live = $2, building = NULL WHERE id = $1",
        &[&collection.id, &generation],
    )
    .await?;
    drop_generation(&tx, collection.active).await?;
    tx.commit().await?;
    Ok(true)
}

async fn drop_generation(tx: &Transaction<'_>, generation: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM embeddery.generations WHERE id = $1", &[&generation]).await?;
    Ok(())
}

/// Returns the collection if it builds this generation.
async fn find_building(
    tx: &Transaction<'_>,
    collection_ref: CollectionRef<'_>,
    generation: i64,
    lock_mode: LockMode,
) -> Result<CollectionRow, StoreError> {
    let collection = find(tx, collection_ref, lock_mode).await?;
    if collection.building == Some(generation) {
        Ok(collection)
    } else {
        Err(StoreError::migration_ended(collection_ref.collection))
    }
}
