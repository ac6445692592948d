//! Cache of the matrices in memory, within a budget. A search uses a matrix only in the state that its own transaction
//! sees; a matrix in an older state is refreshed first.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rusqlite::{Transaction, params};

use super::{read::decode_vector, user_database::lock};
use crate::{StoreError, matrix::Matrix};

/// Key of a matrix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MatrixKey {
    pub(super) user: String,
    /// Inode of the database. A user that is deleted and created again has another file.
    pub(super) inode: u64,
    pub(super) generation: i64,
}

/// The matrices of all users.
pub(super) struct MatrixCache {
    budget_bytes: usize,
    cached: Mutex<HashMap<MatrixKey, Arc<CachedMatrix>>>,
    clock: AtomicU64,
}

/// The matrix of one generation.
pub(super) struct CachedMatrix {
    state: RwLock<State>,
    last_used: AtomicU64,
    bytes: AtomicU64,
}

struct State {
    matrix: Matrix,
    version: GenerationVersion,
}

/// State of a generation. Vectors are never changed in place, so equal numbers mean equal vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GenerationVersion {
    pub(super) vectors: u64,
    pub(super) removals: u64,
    pub(super) last_vector: i64,
}

impl GenerationVersion {
    /// Reads the state of a generation as the transaction sees it.
    pub(super) fn load(tx: &Transaction<'_>, generation: i64) -> Result<Self, StoreError> {
        let mut statement =
            tx.prepare_cached("SELECT vectors, removals, last_vector FROM generations WHERE id = ?1")?;
        Ok(statement.query_row([generation], |row| {
            Ok(Self { vectors: row.get(0)?, removals: row.get(1)?, last_vector: row.get(2)? })
        })?)
    }
}

impl MatrixCache {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, cached: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// Returns the matrix of a generation, which may still be empty. `needed_bytes` is the memory that it will take; the
    /// result is `None` if that is above the whole budget.
    pub(super) fn get(&self, key: MatrixKey, needed_bytes: usize, dim: usize) -> Option<Arc<CachedMatrix>> {
        if needed_bytes > self.budget_bytes {
            return None;
        }
        let mut all = lock(&self.cached);
        let cached = all.entry(key).or_insert_with(|| {
            Arc::new(CachedMatrix {
                state: RwLock::new(State { matrix: Matrix::new(dim), version: GenerationVersion::default() }),
                last_used: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            })
        });
        cached.last_used.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        cached.bytes.fetch_max(needed_bytes as u64, Relaxed);
        let cached = Arc::clone(cached);
        // Evicts the least recently used matrices. This one is the most recently used, so it stays.
        let total_bytes = |all: &HashMap<MatrixKey, Arc<CachedMatrix>>| -> u64 {
            all.values().map(|cached| cached.bytes.load(Relaxed)).sum()
        };
        while all.len() > 1 && total_bytes(&all) > self.budget_bytes as u64 {
            let oldest = all
                .iter()
                .min_by_key(|(_, cached)| cached.last_used.load(Relaxed))
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        Some(cached)
    }

    /// Drops the matrices of a user.
    pub(super) fn remove_user(&self, user: &str) {
        lock(&self.cached).retain(|key, _| key.user != user);
    }
}

impl CachedMatrix {
    /// Calls `work` with the matrix in the state that `tx` sees. Returns `None` if the matrix is in a later state; the
    /// caller then starts again with a new transaction.
    pub(super) fn with<T>(
        &self,
        tx: &Transaction<'_>,
        generation: i64,
        work: impl FnOnce(&Matrix) -> T,
    ) -> Result<Option<T>, StoreError> {
        let target = GenerationVersion::load(tx, generation)?;
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.version == target {
                return Ok(Some(work(&state.matrix)));
            }
        }
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.version.removals > target.removals || state.version.last_vector > target.last_vector {
                return Ok(None);
            }
            if state.version != target {
                refresh(tx, generation, &mut state, target)?;
                self.bytes.store(state.matrix.bytes() as u64, Relaxed);
            }
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok((state.version == target).then(|| work(&state.matrix)))
    }
}

/// Removes rows of deleted vectors and adds rows of new ones. On an error the version stays as it was, so that the next
/// search refreshes the matrix again.
fn refresh(
    tx: &Transaction<'_>,
    generation: i64,
    state: &mut State,
    target: GenerationVersion,
) -> Result<(), StoreError> {
    let State { matrix, version } = state;
    if version.removals != target.removals && !matrix.is_empty() {
        let mut ids = tx.prepare_cached("SELECT id FROM vectors WHERE generation = ?1 ORDER BY id")?;
        let ids: Vec<i64> = ids.query_map([generation], |row| row.get(0))?.collect::<Result<_, _>>()?;
        matrix.retain(&ids);
    }
    let mut new = tx.prepare_cached(
        "SELECT id, document, vector FROM vectors WHERE generation = ?1 AND id > ?2 ORDER BY id",
    )?;
    let after = matrix.last_id().unwrap_or(0);
    matrix.reserve((target.vectors as usize).saturating_sub(matrix.len()));
    let mut rows = new.query(params![generation, after])?;
    while let Some(row) = rows.next()? {
        matrix.push(row.get(0)?, row.get(1)?, &decode_vector(row.get_ref(2)?.as_blob()?));
    }
    *version = target;
    Ok(())
}
