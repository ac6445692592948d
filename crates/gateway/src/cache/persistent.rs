//! A cache behind the memory: slower, larger, and it outlives the process. It can help a request but not fail or delay
//! it: a read has little time, and after a failure the cache is not used for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_core::{BoxFuture, to_ms};
use tokio::{sync::Semaphore, time::Instant};

use super::{Entry, Key};

/// Storage for the bytes of entries, with an expiry.
pub trait PersistentCache: Send + Sync {
    /// The bytes under each key. Expired ones are not returned.
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, CacheError>>;

    /// Stores these entries for this long.
    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), CacheError>>;

    /// Removes all entries, and returns their number.
    fn clear(&self) -> BoxFuture<'_, Result<u64, CacheError>>;
}

/// Why an operation of the persistent cache failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CacheError(pub String);

/// Maximum time that a request waits for a read.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long the cache is not used after a failure.
const COOLDOWN: Duration = Duration::from_secs(5);
/// Maximum writes in progress. More are dropped; their texts are computed again later.
const MAX_WRITES: usize = 32;

/// A persistent cache whose failures have no effect on requests.
pub(super) struct FailOpen {
    pub(super) cache: Arc<dyn PersistentCache>,
    availability: Arc<Availability>,
    writes: Arc<Semaphore>,
}

/// When the cache may be used again, in milliseconds after `started`.
struct Availability {
    started: Instant,
    available_at_ms: AtomicU64,
}

impl FailOpen {
    pub(super) fn new(cache: Arc<dyn PersistentCache>) -> Self {
        let availability = Availability { started: Instant::now(), available_at_ms: AtomicU64::new(0) };
        Self { cache, availability: Arc::new(availability), writes: Arc::new(Semaphore::new(MAX_WRITES)) }
    }

    /// The entries that it has; none if it is unavailable.
    pub(super) async fn get(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let nothing = || vec![None; keys.len()];
        if !self.availability.is_available() {
            return nothing();
        }
        let found = tokio::time::timeout(TIMEOUT, self.cache.get(keys)).await;
        let timed_out = || CacheError(format!("no response within {} ms", TIMEOUT.as_millis()));
        match found.unwrap_or_else(|_| Err(timed_out())) {
            Ok(found) if found.len() == keys.len() => {
                found.into_iter().map(|bytes| Entry::from_bytes(&bytes?)).collect()
            }
            Ok(_) => nothing(),
            Err(error) => {
                self.availability.record_failure(&error);
                nothing()
            }
        }
    }

    /// Stores entries, in the background.
    pub(super) fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) {
        if entries.is_empty() || !self.availability.is_available() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.writes).try_acquire_owned() else { return };
        let (cache, availability) = (Arc::clone(&self.cache), Arc::clone(&self.availability));
        tokio::spawn(async move {
            if let Err(error) = cache.put(entries, ttl).await {
                availability.record_failure(&error);
            }
            drop(permit);
        });
    }
}

impl Availability {
    fn is_available(&self) -> bool {
        to_ms(self.started.elapsed()) >= self.available_at_ms.load(Relaxed)
    }

    fn record_failure(&self, error: &CacheError) {
        let next = to_ms(self.started.elapsed() + COOLDOWN);
        if self.available_at_ms.swap(next, Relaxed) + 1 < next {
            tracing::warn!(%error, "the persistent cache is unavailable; requests go on without it");
        }
    }
}
