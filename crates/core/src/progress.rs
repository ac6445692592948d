//! The progress of a download, which can be read while the download runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Downloaded bytes and total bytes. Lock-free: a reader may see a slightly older value.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Sets the total number of bytes; zero while unknown.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// Sets the number of downloaded bytes. A resumed download starts above zero; a restarted download resets it.
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// Adds bytes that were received.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Downloaded bytes and total bytes (zero while unknown).
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.total.load(Relaxed))
    }

    /// Progress in whole percent, 0 to 100.
    pub fn percent(&self) -> u8 {
        let (done, total) = self.bytes();
        u8::try_from((done.saturating_mul(100)).checked_div(total).unwrap_or(0).min(100)).unwrap_or(100)
    }
}
