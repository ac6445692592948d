//! Migration of a collection to another model. A second generation of vectors is built beside the active one. When no
//! chunk is missing, it becomes the active one in one step.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    collections::{CollectionRow, add_generation, drop_generation, find},
    write::{add_vector, count_added},
};
use crate::{MissingVector, ModelBinding, StoreError, check_vector};

pub(super) fn begin_migration(
    tx: &Transaction<'_>,
    name: &str,
    to: &ModelBinding,
) -> Result<i64, StoreError> {
    let collection = find(tx, name)?;
    if collection.view.binding.space == to.space {
        return Err(StoreError::same_space(name, &to.space));
    }
    if let Some(migration) = &collection.view.migration {
        if migration.binding == *to {
            return Ok(migration.generation);
        }
        drop_generation(tx, migration.generation)?;
    }
    let generation = add_generation(tx, to)?;
    tx.execute("UPDATE collections SET building = ?2 WHERE id = ?1", params![collection.id, generation])?;
    Ok(generation)
}

pub(super) fn missing_vectors(
    tx: &Transaction<'_>,
    name: &str,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let collection = find_building(tx, name, generation)?;
    let mut statement = tx.prepare_cached(
        "SELECT c.id, c.text FROM vectors live JOIN chunks c ON c.id = live.chunk
         WHERE live.generation = ?1
           AND NOT EXISTS (SELECT 1 FROM vectors made WHERE made.chunk = c.id AND made.generation = ?2)
         LIMIT ?3",
    )?;
    let rows = statement.query_map(params![collection.active, generation, limit as i64], |row| {
        Ok(MissingVector { chunk: row.get(0)?, text: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn insert_vectors(
    tx: &Transaction<'_>,
    name: &str,
    generation: i64,
    vectors: &[(i64, Vec<f32>)],
) -> Result<(), StoreError> {
    let collection = find_building(tx, name, generation)?;
    let dim = collection.view.migration.map_or(0, |migration| migration.binding.dim);
    let (mut added, mut last_vector) = (0, 0);
    for (chunk, vector) in vectors {
        check_vector(vector, dim)?;
        let document: Option<i64> = tx
            .prepare_cached(
                "SELECT document FROM chunks c WHERE id = ?1
                 AND NOT EXISTS (SELECT 1 FROM vectors WHERE chunk = c.id AND generation = ?2)",
            )?
            .query_row([*chunk, generation], |row| row.get(0))
            .optional()?;
        if let Some(document) = document {
            last_vector = add_vector(tx, generation, document, *chunk, vector)?;
            added += 1;
        }
    }
    count_added(tx, generation, added, last_vector)
}

pub(super) fn activate_generation(
    tx: &Transaction<'_>,
    name: &str,
    generation: i64,
) -> Result<bool, StoreError> {
    let collection = find_building(tx, name, generation)?;
    if !missing_vectors(tx, name, generation, 1)?.is_empty() {
        return Ok(false);
    }
    tx.execute(
        "UPDATE collections SET live = ?2, building = NULL WHERE id = ?1",
        params![collection.id, generation],
    )?;
    drop_generation(tx, collection.active)?;
    Ok(true)
}

/// Returns the collection if it builds this generation.
fn find_building(tx: &Transaction<'_>, name: &str, generation: i64) -> Result<CollectionRow, StoreError> {
    let collection = find(tx, name)?;
    if collection.building == Some(generation) {
        Ok(collection)
    } else {
        Err(StoreError::migration_ended(name))
    }
}
