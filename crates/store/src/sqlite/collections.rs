//! Create, find, list and delete collections.

use embeddery_core::SpaceId;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::{Map, Value};

use super::tombstones;
use crate::{Collection, Counts, Migration, ModelBinding, NewCollection, Stats, StoreError};

/// A collection and its keys in the database.
pub(super) struct CollectionRow {
    pub(super) id: i64,
    /// The generation that is searched.
    pub(super) active: i64,
    /// The generation that a migration builds.
    pub(super) building: Option<i64>,
    pub(super) view: Collection,
}

impl CollectionRow {
    /// Returns the generations of the collection.
    pub(super) fn generations(&self) -> impl Iterator<Item = i64> {
        [Some(self.active), self.building].into_iter().flatten()
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
    let existing =
        tx.query_row("SELECT 1 FROM collections WHERE name = ?1", [name], |_| Ok(())).optional()?;
    if existing.is_some() {
        return Err(StoreError::collection_exists(name));
    }
    if let Some(submission) = new.submission
        && tombstones::latest(tx, name, tombstones::WHOLE_COLLECTION)?
            .is_some_and(|deletion| deletion > submission)
    {
        return Err(StoreError::no_collection(name));
    }
    let active = add_generation(tx, &new.binding)?;
    tx.execute(
        "INSERT INTO collections (name, metadata, live) VALUES (?1, ?2, ?3)",
        params![name, metadata_to_json(&new.metadata), active],
    )?;
    Ok(find(tx, name)?.view)
}

pub(super) fn add_generation(tx: &Transaction<'_>, binding: &ModelBinding) -> Result<i64, StoreError> {
    let ModelBinding { provider, model, space, dim, custom_dimensions } = binding;
    tx.execute(
        "INSERT INTO generations (provider, model, space, dim, cut) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![provider, model, space.as_str(), *dim as i64, custom_dimensions],
    )?;
    Ok(tx.last_insert_rowid())
}

pub(super) fn find(tx: &Transaction<'_>, name: &str) -> Result<CollectionRow, StoreError> {
    let mut statement = tx.prepare_cached(&format!("{SELECT} WHERE c.name = ?1"))?;
    let collection = statement.query_row([name], collection_row).optional()?;
    collection.ok_or_else(|| StoreError::no_collection(name))?
}

pub(super) fn list(tx: &Transaction<'_>) -> Result<Vec<Collection>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("{SELECT} ORDER BY c.name"))?;
    let rows = statement.query_map([], collection_row)?;
    rows.map(|collection| Ok(collection??.view)).collect()
}

pub(super) fn stats(tx: &Transaction<'_>, name: &str) -> Result<Stats, StoreError> {
    let collection = find(tx, name)?;
    let vectors = |generation: i64| {
        tx.query_row("SELECT vectors FROM generations WHERE id = ?1", [generation], |row| {
            row.get::<_, u64>(0)
        })
    };
    let documents =
        tx.query_row("SELECT documents FROM collections WHERE id = ?1", [collection.id], |row| row.get(0))?;
    let counts = Counts { documents, vectors: vectors(collection.active)? };
    let migrated = collection.building.map(vectors).transpose()?.unwrap_or(0);
    Ok(Stats { collection: collection.view, counts, migrated })
}

pub(super) fn drop_collection(tx: &Transaction<'_>, name: &str) -> Result<(), StoreError> {
    let collection = find(tx, name)?;
    for generation in collection.generations() {
        drop_generation(tx, generation)?;
    }
    let chunks = "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.collection = ?1";
    tx.execute(&format!("DELETE FROM words WHERE rowid IN ({chunks})"), [collection.id])?;
    tx.execute(&format!("DELETE FROM chunks WHERE id IN ({chunks})"), [collection.id])?;
    tx.execute("DELETE FROM attributes WHERE collection = ?1", [collection.id])?;
    tx.execute("DELETE FROM documents WHERE collection = ?1", [collection.id])?;
    tx.execute("DELETE FROM collections WHERE id = ?1", [collection.id])?;
    tombstones::record(tx, name, std::iter::once(tombstones::WHOLE_COLLECTION))
}

pub(super) fn drop_generation(tx: &Transaction<'_>, generation: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM vectors WHERE generation = ?1", [generation])?;
    tx.execute("DELETE FROM generations WHERE id = ?1", [generation])?;
    Ok(())
}

fn collection_row(row: &Row<'_>) -> rusqlite::Result<Result<CollectionRow, StoreError>> {
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
    let (id, active, metadata) = (row.get(0)?, row.get(1)?, row.get::<_, String>(4)?);
    Ok(metadata_from_json(&metadata).map(|metadata| CollectionRow {
        id,
        active,
        building,
        view: Collection { name, binding, metadata, migration },
    }))
}

/// Serialises metadata for its column.
pub(super) fn metadata_to_json(metadata: &Map<String, Value>) -> String {
    // A map from strings to JSON values always serialises.
    serde_json::to_string(metadata).unwrap_or_default()
}

pub(super) fn metadata_from_json(text: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::internal(format!("stored metadata is invalid: {error}")))
}
