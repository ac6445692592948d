//! How far a download is, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes here of bytes in all. Writers and readers need no lock; a reader may be a moment behind.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Sets how many bytes there are in all; zero while unknown.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// Sets how many bytes are here: a resumed download starts above zero, a restarted one falls back to it.
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// Counts bytes that just arrived.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Bytes here, and in all (zero: not yet known).
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.total.load(Relaxed))
    }

    /// Whole percent, 0 to 100.
    pub fn percent(&self) -> u8 {
        let (done, total) = self.bytes();
        u8::try_from((done.saturating_mul(100)).checked_div(total).unwrap_or(0).min(100)).unwrap_or(100)
    }
}
