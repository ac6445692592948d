//! The move of a collection to another model, as in the embedded store.

use deadpool_postgres::Transaction;
use pgvector::HalfVector;

use super::{
    collections::{Found, LockMode, add_generation, find},
    connection::{Connections, new_ids},
    write::{add_vectors, to_half_unit},
};
use crate::{CollectionRef, MissingVector, ModelBinding, StoreError, check_vector};

pub(super) async fn begin(
    connections: &Connections,
    place: CollectionRef<'_>,
    to: ModelBinding,
) -> Result<i64, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::Alone).await?;
    if found.view.binding.space == to.space {
        return Err(StoreError::already_there(place.collection, &to.space));
    }
    if let Some(migration) = &found.view.migration {
        if migration.binding == to {
            return Ok(migration.generation);
        }
        drop_generation(&tx, migration.generation).await?;
    }
    let generation = new_ids(&tx, 1).await?.remove(0);
    add_generation(&tx, (place.tenant, found.id, generation), &to).await?;
    tx.execute("UPDATE embeddery.collections SET building = $2 WHERE id = $1", &[&found.id, &generation])
        .await?;
    tx.commit().await?;
    Ok(generation)
}

pub(super) async fn pending(
    connections: &Connections,
    place: CollectionRef<'_>,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = building(&tx, place, (generation, LockMode::No)).await?;
    missing(&tx, &found, generation, limit).await
}

async fn missing(
    tx: &Transaction<'_>,
    found: &Found,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let rows = tx
        .query(
            "SELECT c.id, c.text FROM embeddery.vectors live JOIN embeddery.chunks c ON c.id = live.chunk
             WHERE live.generation = $1 AND NOT EXISTS
                   (SELECT 1 FROM embeddery.vectors made WHERE made.chunk = c.id AND made.generation = $2)
             LIMIT $3",
            &[&found.live, &generation, &(limit as i64)],
        )
        .await?;
    Ok(rows.iter().map(|row| MissingVector { chunk: row.get(0), text: row.get(1) }).collect())
}

pub(super) async fn fill(
    connections: &Connections,
    place: CollectionRef<'_>,
    generation: i64,
    vectors: Vec<(i64, Vec<f32>)>,
) -> Result<(), StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = building(&tx, place, (generation, LockMode::Shared)).await?;
    let dim = found.view.migration.map_or(0, |migration| migration.binding.dim);
    let wanted: Vec<i64> = vectors.iter().map(|(chunk, _)| *chunk).collect();
    // Held until the end, so that none goes in between.
    let rows = tx
        .query(
            "SELECT id, document FROM embeddery.chunks WHERE id = ANY($1) ORDER BY id FOR SHARE",
            &[&wanted],
        )
        .await?;
    let documents: std::collections::HashMap<i64, i64> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (mut owners, mut chunks, mut halves) = (Vec::new(), Vec::new(), Vec::<HalfVector>::new());
    for (chunk, vector) in &vectors {
        check_vector(vector, dim)?;
        if let Some(document) = documents.get(chunk) {
            owners.push(*document);
            chunks.push(*chunk);
            halves.push(to_half_unit(vector));
        }
    }
    add_vectors(&tx, (place.tenant, generation), (&owners, &chunks, &halves)).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn flip(
    connections: &Connections,
    place: CollectionRef<'_>,
    generation: i64,
) -> Result<bool, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin(&mut client, place.tenant).await?;
    let found = building(&tx, place, (generation, LockMode::Alone)).await?;
    if !missing(&tx, &found, generation, 1).await?.is_empty() {
        return Ok(false);
    }
    tx.execute(
        "UPDATE embeddery.collections SET live = $2, building = NULL WHERE id = $1",
        &[&found.id, &generation],
    )
    .await?;
    drop_generation(&tx, found.live).await?;
    tx.commit().await?;
    Ok(true)
}

async fn drop_generation(tx: &Transaction<'_>, generation: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM embeddery.generations WHERE id = $1", &[&generation]).await?;
    Ok(())
}

/// The collection, when this is the generation it builds.
async fn building(
    tx: &Transaction<'_>,
    place: CollectionRef<'_>,
    (generation, hold): (i64, LockMode),
) -> Result<Found, StoreError> {
    let found = find(tx, place, hold).await?;
    if found.building == Some(generation) { Ok(found) } else { Err(StoreError::replaced(place.collection)) }
}
