//! Room for vectors, taken out of a tenant's quota before they are written. Who died between taking room and using
//! it has left a count that is too high; so before a tenant is refused, what they have is counted anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embeddery_accounts::{
    UserId,
    ledger::{Counter, QuotaExceeded},
};
use embeddery_store::{CollectionRef, StoreErrorKind, UpsertResult, VectorStore};
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    time::Instant,
};

use super::{StageContext, StageFailure};

/// The tenants of one process who write vectors: one that is counted anew keeps no other waiting.
#[derive(Default)]
pub struct VectorQuota(Mutex<HashMap<Arc<str>, Arc<TenantCount>>>);

/// Held for reading by who has taken room and has not used it yet; knows the last time the tenant was counted.
type TenantCount = RwLock<Option<Counted>>;

#[derive(Clone, Copy)]
struct Counted {
    at: Instant,
    /// Whether the store could be asked.
    known: bool,
}

/// A tenant is counted anew at most once in this time, however many of their writes are refused.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(5);

impl VectorQuota {
    /// A tenant's books; those that nobody looks at are forgotten with their last count.
    fn of(&self, tenant: &Arc<str>) -> Arc<TenantCount> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(books) = all.get(tenant) {
            return Arc::clone(books);
        }
        all.retain(|_, books| {
            Arc::strong_count(books) > 1 || books.try_read().is_ok_and(|last| recent(*last).is_some())
        });
        Arc::clone(all.entry(Arc::clone(tenant)).or_default())
    }
}

fn recent(last: Option<Counted>) -> Option<Counted> {
    last.filter(|counted| counted.at.elapsed() < RECOUNT_INTERVAL)
}

/// Room that is taken.
pub(super) struct QuotaReservation<'a> {
    tools: &'a StageContext,
    user: UserId,
    taken: u64,
    _using: OwnedRwLockReadGuard<Option<Counted>>,
}

impl<'a> QuotaReservation<'a> {
    pub(super) async fn take(
        tools: &'a StageContext,
        tenant: &Arc<str>,
        vectors: u64,
    ) -> Result<Self, StageFailure> {
        let user = UserId::new(Arc::clone(tenant));
        let take = || tools.ledger.acquire(&user, Counter::StoredVectors, vectors);
        let books = tools.rooms.of(tenant);
        let mut using = Arc::clone(&books).read_owned().await;
        if vectors > 0
            && let Err(exhausted) = take().await
        {
            if let Some(counted) = recent(*using) {
                return Err(counted.refusal(exhausted));
            }
            // Nobody uses any while it is counted: nobody is refused by a count that is wrong.
            drop(using);
            let mut alone = books.write_owned().await;
            let counted = match recent(*alone) {
                Some(counted) => counted,
                None => recount(tools, &user).await,
            };
            *alone = Some(counted);
            take().await.map_err(|exhausted| counted.refusal(exhausted))?;
            using = alone.downgrade();
        }
        Ok(Self { tools, user, taken: vectors, _using: using })
    }

    /// Gives back what was not needed: vectors that were there already, and those that are there no more.
    pub(super) async fn used(self, written: &UpsertResult) {
        let back = self.taken.saturating_sub(written.added) + written.removed;
        if back > 0 {
            self.tools.ledger.release(&self.user, Counter::StoredVectors, back).await;
        }
    }
}

impl Counted {
    /// Why there is no room. By a count that may be wrong no document fails for good.
    fn refusal(self, exhausted: QuotaExceeded) -> StageFailure {
        match self.known {
            true => StageFailure::of_quota(exhausted),
            false => {
                StageFailure::again("store_unavailable", "the store did not say how many vectors there are")
            }
        }
    }
}

async fn recount(tools: &StageContext, user: &UserId) -> Counted {
    let tenant = user.directory_name();
    let counting = tokio::time::timeout(tools.patience, count_vectors(&*tools.store, &tenant));
    let stored = counting.await.ok().flatten();
    if let Some(stored) = stored {
        tools.ledger.set(user, Counter::StoredVectors, stored).await;
    }
    Counted { at: Instant::now(), known: stored.is_some() }
}

/// Vectors that a tenant has stored, counted anew; `None` when the store cannot be asked.
pub async fn count_vectors(store: &dyn VectorStore, tenant: &str) -> Option<u64> {
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
    async fn a_tenant_that_is_counted_keeps_no_other_waiting_and_is_forgotten() {
        let rooms = VectorQuota::default();
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let mut alone = rooms.of(&ann).write_owned().await;
        assert!(rooms.of(&ann).try_read().is_err() && rooms.of(&bob).try_read().is_ok());
        *alone = Some(Counted { at: Instant::now(), known: true });
        drop(alone);
        rooms.of(&"carl".into());
        assert!(recent(*rooms.of(&ann).read().await).is_some(), "a count is remembered");
        tokio::time::advance(RECOUNT_INTERVAL).await;
        assert!(recent(*rooms.of(&ann).read().await).is_none());
        rooms.of(&"dora".into());
        assert_eq!(rooms.0.lock().unwrap().len(), 1, "what nobody looks at is forgotten");
    }
}
