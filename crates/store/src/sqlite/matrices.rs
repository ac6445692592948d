//! Matrices in memory, in step with the databases, within a budget. A search brings its own transaction: a matrix
//! is used when it shows exactly what the transaction sees, else it is brought up to it first.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rusqlite::{Transaction, params};

use super::{read::floats, user_database::lock};
use crate::{StoreError, matrix::Matrix};

/// A user, which of the user's files, and a generation in it.
type Key = (String, u64, i64);

/// All matrices.
pub(super) struct Matrices {
    budget: usize,
    cached: Mutex<HashMap<Key, Arc<Cached>>>,
    clock: AtomicU64,
}

/// One generation's matrix.
pub(super) struct Cached {
    state: RwLock<State>,
    used: AtomicU64,
    bytes: AtomicU64,
}

struct State {
    matrix: Matrix,
    seen: Seen,
}

/// How much of a generation a matrix has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) vectors: u64,
    pub(super) removals: u64,
    pub(super) last_vector: i64,
}

impl Seen {
    /// How much of a generation there is to see.
    pub(super) fn of(tx: &Transaction<'_>, generation: i64) -> Result<Self, StoreError> {
        let mut statement =
            tx.prepare_cached("SELECT vectors, removals, last_vector FROM generations WHERE id = ?1")?;
        Ok(statement.query_row([generation], |row| {
            Ok(Self { vectors: row.get(0)?, removals: row.get(1)?, last_vector: row.get(2)? })
        })?)
    }
}

impl Matrices {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, cached: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// A generation's matrix; `None` when it would not fit into the budget by itself.
    pub(super) fn get(
        &self,
        (user, inode, generation): (&str, u64, i64),
        needs: usize,
        dim: usize,
    ) -> Option<Arc<Cached>> {
        if needs > self.budget {
            return None;
        }
        let mut all = lock(&self.cached);
        let key = (user.to_owned(), inode, generation);
        let found = all.entry(key).or_insert_with(|| {
            Arc::new(Cached {
                state: RwLock::new(State { matrix: Matrix::new(dim), seen: Seen::default() }),
                used: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            })
        });
        found.used.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        found.bytes.fetch_max(needs as u64, Relaxed);
        let found = Arc::clone(found);
        // The one unused for longest goes first, this one never.
        let bytes = |all: &HashMap<Key, Arc<Cached>>| -> u64 {
            all.values().map(|one| one.bytes.load(Relaxed)).sum()
        };
        while all.len() > 1 && bytes(&all) > self.budget as u64 {
            let oldest = all.iter().min_by_key(|(_, one)| one.used.load(Relaxed)).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        Some(found)
    }

    /// Drops what is known of a user.
    pub(super) fn forget(&self, user: &str) {
        lock(&self.cached).retain(|(owner, ..), _| owner != user);
    }
}

impl Cached {
    /// Works with the matrix as `tx` sees the generation; `None` when the matrix has seen later things than `tx`,
    /// which then begins anew.
    pub(super) fn with<T>(
        &self,
        tx: &Transaction<'_>,
        generation: i64,
        work: impl FnOnce(&Matrix) -> T,
    ) -> Result<Option<T>, StoreError> {
        let due = Seen::of(tx, generation)?;
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.seen == due {
                return Ok(Some(work(&state.matrix)));
            }
        }
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.seen.removals > due.removals || state.seen.last_vector > due.last_vector {
                return Ok(None);
            }
            if state.seen != due {
                refresh(tx, generation, &mut state, due)?;
                self.bytes.store(state.matrix.bytes() as u64, Relaxed);
            }
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok((state.seen == due).then(|| work(&state.matrix)))
    }
}

/// Drops rows that are gone and adds those that are new. A failure half-way leaves what it has seen unsaid, and the
/// next search does it again.
fn refresh(tx: &Transaction<'_>, generation: i64, state: &mut State, due: Seen) -> Result<(), StoreError> {
    let State { matrix, seen } = state;
    if seen.removals != due.removals && !matrix.is_empty() {
        let mut ids = tx.prepare_cached("SELECT id FROM vectors WHERE generation = ?1 ORDER BY id")?;
        let ids: Vec<i64> = ids.query_map([generation], |row| row.get(0))?.collect::<Result<_, _>>()?;
        matrix.retain(&ids);
    }
    let mut new = tx.prepare_cached(
        "SELECT id, document, vector FROM vectors WHERE generation = ?1 AND id > ?2 ORDER BY id",
    )?;
    let after = matrix.last_id().unwrap_or(0);
    matrix.make_room((due.vectors as usize).saturating_sub(matrix.len()));
    let mut rows = new.query(params![generation, after])?;
    while let Some(row) = rows.next()? {
        matrix.push(row.get(0)?, row.get(1)?, &floats(row.get_ref(2)?.as_blob()?));
    }
    *seen = due;
    Ok(())
}
