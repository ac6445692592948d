//! Statistics of one request, which the server reports in response headers and logs. The wrappers of the gateway record
//! them. They never change the vectors.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Statistics of one request: cache hits and misses, attempts at providers and their duration, and the variant of the
/// vectors. Clones share the same values.
#[derive(Clone, Debug, Default)]
pub struct RequestStats(Arc<Values>);

#[derive(Debug, Default)]
struct Values {
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    upstream_nanoseconds: AtomicU64,
    attempts: AtomicU64,
    variant: OnceLock<Arc<str>>,
}

impl RequestStats {
    /// Adds the hits and misses of one cache lookup, counted in texts.
    pub fn record_cache_lookup(&self, hits: usize, misses: usize) {
        self.0.cache_hits.fetch_add(hits as u64, Relaxed);
        self.0.cache_misses.fetch_add(misses as u64, Relaxed);
    }

    /// Turns misses of an earlier lookup into hits, because a later lookup found these texts.
    pub fn record_late_hits(&self, hits: usize) {
        self.0.cache_hits.fetch_add(hits as u64, Relaxed);
        let misses = |misses: u64| Some(misses.saturating_sub(hits as u64));
        let _ = self.0.cache_misses.fetch_update(Relaxed, Relaxed, misses);
    }

    /// Cache hits and misses in texts; `None` without a cache lookup.
    pub fn cache(&self) -> Option<(u64, u64)> {
        let counts = (self.0.cache_hits.load(Relaxed), self.0.cache_misses.load(Relaxed));
        (counts != (0, 0)).then_some(counts)
    }

    /// Adds one attempt at a provider and its duration.
    pub fn record_attempt(&self, duration: Duration) {
        self.0.attempts.fetch_add(1, Relaxed);
        self.0
            .upstream_nanoseconds
            .fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The number of attempts at providers and the sum of their durations. Parallel attempts are added up.
    pub fn upstream(&self) -> (u64, Duration) {
        (self.0.attempts.load(Relaxed), Duration::from_nanos(self.0.upstream_nanoseconds.load(Relaxed)))
    }

    /// Sets the variant of the vectors. Later calls have no effect.
    pub fn set_variant(&self, variant: impl FnOnce() -> Arc<str>) {
        self.0.variant.get_or_init(variant);
    }

    /// The variant of the vectors. `None` until vectors are returned by a model or by the cache.
    pub fn variant(&self) -> Option<&str> {
        self.0.variant.get().map(|variant| &**variant)
    }
}
