//! The quota of stored vectors, exact while many writers of a user are at work.
//!
//! The ledger's counter of a user holds the stored vectors and the vectors that writes under way have reserved. A
//! write reserves before it stores, and settles when the store has answered. The counter drifts when a write ends
//! without a settlement: its caller disconnects, or its process dies. It is therefore compared with the store before a
//! user is refused, at most once in [`RECOUNT_INTERVAL`] unless a write of this process ended in such a way.
//!
//! A write that does not fit because of vectors that other writes have reserved waits for them: they may need fewer
//! than they have reserved.
//!
//! Reservations are known to their process. Processes that share a ledger see each other's reservations in the counter,
//! but a recount of one process drops those of the others.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_accounts::{
    Ledger, UserId,
    ledger::{Counter, QuotaExceeded},
};
use embeddery_store::{CollectionRef, StoreError, StoreErrorKind, UpsertResult, VectorStore};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, RwLock},
    time::{Instant, timeout, timeout_at},
};

use super::{Ingest, WriteError};

/// Minimum time between two counts of a user's vectors.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum duration of a count, and of the wait for the user's running upserts before it.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of counts for one reservation.
const MAX_COUNTS: u32 = 3;

/// Maximum time that a deletion waits for its count.
const DELETION_COUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// The users of one process that write vectors. A count of one user does not delay another user.
#[derive(Default)]
pub struct VectorQuota(Mutex<HashMap<Arc<str>, Arc<UserQuota>>>);

/// The reservations of one user. `commits` is locked before `count`.
#[derive(Default)]
struct UserQuota {
    /// Held for reading while a write stores its vectors and settles, for writing while the store is counted.
    commits: RwLock<()>,
    /// Held while the ledger's counter changes.
    count: AsyncMutex<Option<Count>>,
    /// Vectors that are reserved and not settled.
    reserved: AtomicU64,
    /// Writes whose effect on the counter is unknown.
    unsettled: AtomicU64,
    /// Notified when a reservation ends.
    released: Notify,
}

/// The last comparison of the counter with the store.
#[derive(Clone, Copy, Debug)]
struct Count {
    at: Instant,
    /// [`UserQuota::unsettled`] at that moment; `None` when the store did not answer.
    settled_until: Option<u64>,
}

impl VectorQuota {
    /// A user's reservations. Users without a reservation and without a recent count are removed.
    fn user(&self, user: &UserId) -> Arc<UserQuota> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = users.get(user.as_str()) {
            return Arc::clone(quota);
        }
        users.retain(|_, quota| {
            Arc::strong_count(quota) > 1
                || quota.count.try_lock().is_ok_and(|count| count.is_some_and(Count::is_recent))
        });
        Arc::clone(users.entry(user.shared()).or_default())
    }
}

impl Count {
    /// The store did not answer.
    fn failed() -> Self {
        Self { at: Instant::now(), settled_until: None }
    }

    fn is_recent(self) -> bool {
        self.at.elapsed() < RECOUNT_INTERVAL
    }
}

impl UserQuota {
    /// Whether the counter may differ from the store, and the store may be asked.
    fn is_count_due(&self, last: Option<Count>) -> bool {
        last.is_none_or(|last| {
            let unsettled = self.unsettled.load(SeqCst);
            !last.is_recent() || last.settled_until.is_some_and(|settled| settled != unsettled)
        })
    }

    /// Whether a write of this process has ended without a settlement since the last count.
    fn has_unsettled(&self, last: Option<Count>) -> bool {
        last.map_or(Some(0), |last| last.settled_until) != Some(self.unsettled.load(SeqCst))
    }
}

/// Vectors that are reserved in the ledger. Dropped without a settlement, they stay in the counter until the next
/// count.
pub(crate) struct QuotaReservation {
    ledger: Arc<Ledger>,
    user: UserId,
    quota: Arc<UserQuota>,
    vectors: u64,
    settled: bool,
}

impl QuotaReservation {
    /// Stores vectors and settles.
    ///
    /// Run this in a task of its own: it is unknown how many vectors a write has stored that is interrupted.
    pub(crate) async fn commit(
        self,
        upsert: impl Future<Output = Result<UpsertResult, StoreError>>,
    ) -> Result<UpsertResult, StoreError> {
        let quota = Arc::clone(&self.quota);
        let _commit = quota.commits.read().await;
        let result = upsert.await;
        if result.as_ref().is_err_and(|error| may_have_stored(&error.kind)) {
            quota.unsettled.fetch_add(1, SeqCst);
        }
        let (added, removed) = result.as_ref().map_or((0, 0), |result| (result.added, result.removed));
        self.settle(added, removed).await;
        result
    }

    /// Returns all vectors to the quota.
    pub(crate) async fn release(self) {
        self.settle(0, 0).await;
    }

    /// Corrects the counter by the vectors that the store has added and removed.
    async fn settle(mut self, added: u64, removed: u64) {
        let quota = Arc::clone(&self.quota);
        let count = quota.count.lock().await;
        match (self.vectors + removed).checked_sub(added) {
            Some(0) => {}
            Some(rest) => self.ledger.release(&self.user, Counter::StoredVectors, rest).await,
            // Chunks that were stored when the vectors were reserved were deleted since.
            None => {
                let excess = added - self.vectors - removed;
                if self.ledger.acquire(&self.user, Counter::StoredVectors, excess).await.is_err() {
                    quota.unsettled.fetch_add(1, SeqCst);
                }
            }
        }
        self.settled = true;
        quota.reserved.fetch_sub(self.vectors, SeqCst);
        drop(count);
        quota.released.notify_waiters();
    }
}

/// Whether an upsert that failed so may have been committed: a connection may break after the commit.
fn may_have_stored(kind: &StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Unavailable { .. } | StoreErrorKind::Internal)
}

impl Drop for QuotaReservation {
    fn drop(&mut self) {
        if !self.settled {
            // In this order: a count that runs in between must not treat the counter as settled.
            self.quota.reserved.fetch_sub(self.vectors, SeqCst);
            self.quota.unsettled.fetch_add(1, SeqCst);
            self.quota.released.notify_waiters();
        }
    }
}

impl Ingest {
    /// Reserves vectors. `deadline` bounds the wait for other writes.
    pub(crate) async fn reserve(
        &self,
        user: &UserId,
        vectors: u64,
        deadline: Instant,
    ) -> Result<QuotaReservation, WriteError> {
        let quota = self.quota.user(user);
        let mut counts = 0;
        if quota.has_unsettled(*quota.count.lock().await) {
            self.count_if_due(user, &quota).await;
        }
        loop {
            // Enabled before the attempt, so that a release after it is not missed.
            let mut released = pin!(quota.released.notified());
            released.as_mut().enable();
            let count = quota.count.lock().await;
            // Made before the acquisition: when the caller disconnects during it, its effect is unknown.
            let mut reservation = QuotaReservation {
                ledger: Arc::clone(&self.ledger),
                user: user.clone(),
                quota: Arc::clone(&quota),
                vectors: 0,
                settled: false,
            };
            let acquired = match vectors {
                0 => Ok(()),
                _ => self.ledger.acquire(user, Counter::StoredVectors, vectors).await,
            };
            let exceeded = match acquired {
                Ok(()) => {
                    reservation.vectors = vectors;
                    quota.reserved.fetch_add(vectors, SeqCst);
                    return Ok(reservation);
                }
                Err(exceeded) => exceeded,
            };
            reservation.settled = true;
            let (last, reserved) = (*count, quota.reserved.load(SeqCst));
            drop(count);
            if fits_without(exceeded, vectors, reserved) {
                if timeout_at(deadline, released).await.is_err() {
                    return Err(WriteError::QuotaReserved);
                }
            } else if quota.is_count_due(last) && counts < MAX_COUNTS {
                counts += 1;
                self.count_if_due(user, &quota).await;
            } else if last.is_some_and(|last| last.settled_until.is_some()) {
                return Err(WriteError::QuotaExceeded(exceeded));
            } else {
                return Err(WriteError::QuotaUnknown(
                    "the store did not return the number of stored vectors",
                ));
            }
        }
    }

    /// Counts a user's vectors after a deletion. When running upserts delay the count, the next write counts.
    pub async fn recount_after_deletion(&self, user: &UserId) {
        let quota = self.quota.user(user);
        quota.unsettled.fetch_add(1, SeqCst);
        let _ = timeout(DELETION_COUNT_TIMEOUT, self.count_if_due(user, &quota)).await;
    }

    /// Sets a user's counter to the number of stored and reserved vectors, unless a recent count is valid. A store that
    /// does not answer leaves the counter as it is.
    pub async fn recount_if_due(&self, user: &UserId) {
        self.count_if_due(user, &self.quota.user(user)).await;
    }

    async fn count_if_due(&self, user: &UserId, quota: &UserQuota) {
        // Before the lock: most writes need no count, and must not wait for the user's running upserts.
        if !quota.is_count_due(*quota.count.lock().await) {
            return;
        }
        // No write stores vectors meanwhile: each vector is either stored or reserved.
        let Ok(_no_commits) = timeout(COUNT_TIMEOUT, quota.commits.write()).await else { return };
        let mut last = quota.count.lock().await;
        if !quota.is_count_due(*last) {
            return;
        }
        let stored = timeout(COUNT_TIMEOUT, count_vectors(&*self.store, &user.directory_name())).await;
        let settled_until = quota.unsettled.load(SeqCst);
        *last = match stored.ok().flatten() {
            Some(stored) => {
                let reserved = quota.reserved.load(SeqCst);
                self.ledger.set(user, Counter::StoredVectors, stored + reserved).await;
                Some(Count { at: Instant::now(), settled_until: Some(settled_until) })
            }
            None => Some(Count::failed()),
        };
    }
}

/// Whether the vectors would fit if no other write had a reservation.
fn fits_without(exceeded: QuotaExceeded, vectors: u64, reserved: u64) -> bool {
    match exceeded {
        QuotaExceeded::Counter { limit, used, .. } => {
            reserved > 0 && used.saturating_sub(reserved).saturating_add(vectors) <= limit
        }
        QuotaExceeded::Tokens { .. } => false,
    }
}

/// Vectors that a user has stored; `None` when the store does not answer.
async fn count_vectors(store: &dyn VectorStore, tenant: &str) -> Option<u64> {
    let mut vectors = 0;
    for collection in store.list(tenant).await.ok()? {
        match store.stats(CollectionRef { tenant, collection: &collection.name }).await {
            Ok(stats) => vectors += stats.counts.vectors,
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_delays_no_other_user_and_is_removed_when_it_is_old() {
        let quota = VectorQuota::default();
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let counted = quota.user(&ann);
        let mut count = counted.count.lock().await;
        assert!(quota.user(&ann).count.try_lock().is_err());
        assert!(quota.user(&bob).count.try_lock().is_ok());
        *count = Some(Count { at: Instant::now(), settled_until: Some(0) });
        drop(count);
        drop(counted);
        drop(quota.user(&UserId::new("carl")));
        assert!(!quota.user(&ann).is_count_due(*quota.user(&ann).count.lock().await), "a count is kept");
        tokio::time::advance(RECOUNT_INTERVAL).await;
        assert!(quota.user(&ann).is_count_due(*quota.user(&ann).count.lock().await));
        drop(quota.user(&UserId::new("dora")));
        assert_eq!(quota.0.lock().unwrap().len(), 1, "users without a recent count are removed");
    }

    #[tokio::test]
    async fn a_write_that_ended_without_a_settlement_makes_a_count_due() {
        let quota = UserQuota::default();
        let last = Some(Count { at: Instant::now(), settled_until: Some(0) });
        assert!(!quota.is_count_due(last) && !quota.has_unsettled(last));
        quota.unsettled.fetch_add(1, SeqCst);
        assert!(quota.is_count_due(last) && quota.has_unsettled(last) && quota.has_unsettled(None));
        let failed = Some(Count::failed());
        assert!(!quota.is_count_due(failed), "a store that does not answer is not asked for each write");
    }
}
