//! Collections: made, found, listed, dropped.

use embeddery_core::SpaceId;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::{Map, Value};

use super::tombstones;
use crate::{Collection, Counts, Migration, ModelBinding, NewCollection, Stats, StoreError};

/// A collection with its numbers in the database.
pub(super) struct Found {
    pub(super) id: i64,
    /// The generation that is searched.
    pub(super) live: i64,
    pub(super) building: Option<i64>,
    pub(super) view: Collection,
}

impl Found {
    /// The collection's generations.
    pub(super) fn generations(&self) -> impl Iterator<Item = i64> {
        [Some(self.live), self.building].into_iter().flatten()
    }
}

const SELECT: &str = "
    SELECT c.id, c.live, c.building, c.name, c.metadata,
           l.provider, l.model, l.space, l.dim, l.cut,
           b.provider, b.model, b.space, b.dim, b.cut
    FROM collections c JOIN generations l ON l.id = c.live LEFT JOIN generations b ON b.id = c.building";

pub(super) fn create(
    tx: &Transaction<'_>,
    name: &str,
    new: &NewCollection,
) -> Result<Collection, StoreError> {
    let there = tx.query_row("SELECT 1 FROM collections WHERE name = ?1", [name], |_| Ok(())).optional()?;
    if there.is_some() {
        return Err(StoreError::exists(name));
    }
    if let Some(ours) = new.submission
        && tombstones::last(tx, name, tombstones::ALL)?.is_some_and(|later| later > ours)
    {
        return Err(StoreError::no_collection(name));
    }
    let live = add_generation(tx, &new.binding)?;
    tx.execute(
        "INSERT INTO collections (name, metadata, live) VALUES (?1, ?2, ?3)",
        params![name, write_metadata(&new.metadata), live],
    )?;
    Ok(find(tx, name)?.view)
}

pub(super) fn add_generation(tx: &Transaction<'_>, binding: &ModelBinding) -> Result<i64, StoreError> {
    let ModelBinding { provider, model, space, dim, custom_dimensions: cut } = binding;
    tx.execute(
        "INSERT INTO generations (provider, model, space, dim, cut) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![provider, model, space.as_str(), *dim as i64, cut],
    )?;
    Ok(tx.last_insert_rowid())
}

pub(super) fn find(tx: &Transaction<'_>, name: &str) -> Result<Found, StoreError> {
    let mut statement = tx.prepare_cached(&format!("{SELECT} WHERE c.name = ?1"))?;
    let found = statement.query_row([name], row).optional()?;
    found.ok_or_else(|| StoreError::no_collection(name))?
}

pub(super) fn list(tx: &Transaction<'_>) -> Result<Vec<Collection>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("{SELECT} ORDER BY c.name"))?;
    let rows = statement.query_map([], row)?;
    rows.map(|found| Ok(found??.view)).collect()
}

pub(super) fn stats(tx: &Transaction<'_>, name: &str) -> Result<Stats, StoreError> {
    let found = find(tx, name)?;
    let vectors = |generation: i64| {
        tx.query_row("SELECT vectors FROM generations WHERE id = ?1", [generation], |row| {
            row.get::<_, u64>(0)
        })
    };
    let documents =
        tx.query_row("SELECT documents FROM collections WHERE id = ?1", [found.id], |row| row.get(0))?;
    let counts = Counts { documents, vectors: vectors(found.live)? };
    let migrated = found.building.map(vectors).transpose()?.unwrap_or(0);
    Ok(Stats { collection: found.view, counts, migrated })
}

pub(super) fn drop(tx: &Transaction<'_>, name: &str) -> Result<(), StoreError> {
    let found = find(tx, name)?;
    for generation in found.generations() {
        drop_generation(tx, generation)?;
    }
    let chunks = "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.collection = ?1";
    tx.execute(
        &format!("INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM chunks WHERE id IN ({chunks})"),
        [found.id],
    )?;
    tx.execute(&format!("DELETE FROM chunks WHERE id IN ({chunks})"), [found.id])?;
    tx.execute("DELETE FROM attributes WHERE collection = ?1", [found.id])?;
    tx.execute("DELETE FROM documents WHERE collection = ?1", [found.id])?;
    tx.execute("DELETE FROM collections WHERE id = ?1", [found.id])?;
    tombstones::remember(tx, name, std::iter::once(tombstones::ALL))
}

pub(super) fn drop_generation(tx: &Transaction<'_>, generation: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM vectors WHERE generation = ?1", [generation])?;
    tx.execute("DELETE FROM generations WHERE id = ?1", [generation])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<Result<Found, StoreError>> {
    let binding = |first: usize| -> rusqlite::Result<ModelBinding> {
        Ok(ModelBinding {
            provider: row.get(first)?,
            model: row.get(first + 1)?,
            space: SpaceId::new(row.get::<_, String>(first + 2)?),
            dim: row.get::<_, i64>(first + 3)? as usize,
            custom_dimensions: row.get(first + 4)?,
        })
    };
    let building: Option<i64> = row.get(2)?;
    let migration = match building {
        Some(generation) => Some(Migration { generation, binding: binding(10)? }),
        None => None,
    };
    let (name, binding) = (row.get(3)?, binding(5)?);
    let (id, live, metadata) = (row.get(0)?, row.get(1)?, row.get::<_, String>(4)?);
    Ok(read_metadata(&metadata).map(|metadata| Found {
        id,
        live,
        building,
        view: Collection { name, binding, metadata, migration },
    }))
}

/// Metadata as they stand in the database.
pub(super) fn write_metadata(metadata: &Map<String, Value>) -> String {
    // A map from strings to JSON values is always JSON.
    serde_json::to_string(metadata).unwrap_or_default()
}

pub(super) fn read_metadata(text: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::internal(format!("stored metadata: {error}")))
}
