//! What happened on the way to an answer, for headers and logs. It travels with the request and never changes
//! what is answered.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Notes on one request; clones write on the same page.
#[derive(Clone, Debug, Default)]
pub struct RequestStats(Arc<Page>);

#[derive(Debug, Default)]
struct Page {
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    upstream_nanoseconds: AtomicU64,
    attempts: AtomicU64,
    variant: OnceLock<Arc<str>>,
}

impl RequestStats {
    /// So many texts were found in a cache, and so many were looked for in vain.
    pub fn record_cache_lookup(&self, hits: usize, misses: usize) {
        self.0.cache_hits.fetch_add(hits as u64, Relaxed);
        self.0.cache_misses.fetch_add(misses as u64, Relaxed);
    }

    /// So many texts that were missed at first were found on the way after all.
    pub fn record_late_hits(&self, hits: usize) {
        self.0.cache_hits.fetch_add(hits as u64, Relaxed);
        let misses = |misses: u64| Some(misses.saturating_sub(hits as u64));
        let _ = self.0.cache_misses.fetch_update(Relaxed, Relaxed, misses);
    }

    /// Hits and misses; `None` when no cache was asked.
    pub fn cache(&self) -> Option<(u64, u64)> {
        let found = (self.0.cache_hits.load(Relaxed), self.0.cache_misses.load(Relaxed));
        (found != (0, 0)).then_some(found)
    }

    /// A provider was asked once more and took so long.
    pub fn record_attempt(&self, took: Duration) {
        self.0.attempts.fetch_add(1, Relaxed);
        self.0.upstream_nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How often a provider was asked, and how long that took over all attempts, parallel ones added up.
    pub fn upstream(&self) -> (u64, Duration) {
        (self.0.attempts.load(Relaxed), Duration::from_nanos(self.0.upstream_nanoseconds.load(Relaxed)))
    }

    /// What made the vectors; the first note counts.
    pub fn set_variant(&self, variant: impl FnOnce() -> Arc<str>) {
        self.0.variant.get_or_init(variant);
    }

    /// The variant of the vectors, once something answered.
    pub fn variant(&self) -> Option<&str> {
        self.0.variant.get().map(|variant| &**variant)
    }
}
