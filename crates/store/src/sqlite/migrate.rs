//! The move of a collection to another model: a second generation of vectors grows beside the live one until no
//! chunk is missing; then it takes its place in one step.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    collections::{Found, add_generation, drop_generation, find},
    write::{add_vector, count_added},
};
use crate::{MissingVector, ModelBinding, StoreError, check_vector};

pub(super) fn begin(tx: &Transaction<'_>, name: &str, to: &ModelBinding) -> Result<i64, StoreError> {
    let found = find(tx, name)?;
    if found.view.binding.space == to.space {
        return Err(StoreError::already_there(name, &to.space));
    }
    if let Some(migration) = &found.view.migration {
        if migration.binding == *to {
            return Ok(migration.generation);
        }
        drop_generation(tx, migration.generation)?;
    }
    let generation = add_generation(tx, to)?;
    tx.execute("UPDATE collections SET building = ?2 WHERE id = ?1", params![found.id, generation])?;
    Ok(generation)
}

pub(super) fn pending(
    tx: &Transaction<'_>,
    name: &str,
    generation: i64,
    limit: usize,
) -> Result<Vec<MissingVector>, StoreError> {
    let found = building(tx, name, generation)?;
    let mut statement = tx.prepare_cached(
        "SELECT c.id, c.text FROM vectors live JOIN chunks c ON c.id = live.chunk
         WHERE live.generation = ?1
           AND NOT EXISTS (SELECT 1 FROM vectors made WHERE made.chunk = c.id AND made.generation = ?2)
         LIMIT ?3",
    )?;
    let rows = statement.query_map(params![found.live, generation, limit as i64], |row| {
        Ok(MissingVector { chunk: row.get(0)?, text: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn fill(
    tx: &Transaction<'_>,
    name: &str,
    generation: i64,
    vectors: &[(i64, Vec<f32>)],
) -> Result<(), StoreError> {
    let found = building(tx, name, generation)?;
    let dim = found.view.migration.map_or(0, |migration| migration.binding.dim);
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
            last_vector = add_vector(tx, (generation, document, *chunk), vector)?;
            added += 1;
        }
    }
    count_added(tx, generation, added, last_vector)
}

pub(super) fn flip(tx: &Transaction<'_>, name: &str, generation: i64) -> Result<bool, StoreError> {
    let found = building(tx, name, generation)?;
    if !pending(tx, name, generation, 1)?.is_empty() {
        return Ok(false);
    }
    tx.execute(
        "UPDATE collections SET live = ?2, building = NULL WHERE id = ?1",
        params![found.id, generation],
    )?;
    drop_generation(tx, found.live)?;
    Ok(true)
}

/// The collection, when this is the generation it builds.
fn building(tx: &Transaction<'_>, name: &str, generation: i64) -> Result<Found, StoreError> {
    let found = find(tx, name)?;
    if found.building == Some(generation) { Ok(found) } else { Err(StoreError::replaced(name)) }
}
