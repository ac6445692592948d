//! Quotas and usage in one SQLite file, which several processes of a host may share.
//!
//! A request reserves an estimate of its tokens and settles its real usage when it completes. If it fails, its caller
//! disconnects or its process dies, the reservation is returned. Settled usage is on disk before the response is sent,
//! so that a killed process loses no usage of a request that was answered.

mod counters;
mod file;
mod report;
mod reservation;
mod token_quota;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use embeddery_core::{Embeddings, ProviderKind};
use jiff::Timestamp;

use crate::UserId;
pub use report::{UsageFilter, UsageRow};
pub use reservation::Reservation;
use writer::Writer;

/// The prices of models.
pub trait Prices: Send + Sync {
    /// Dollars per million tokens; `None` if the price is unknown. Unknown prices count as zero.
    fn per_million_tokens(&self, provider: ProviderKind, model: &str) -> Option<f64>;
}

impl<F: Fn(ProviderKind, &str) -> Option<f64> + Send + Sync> Prices for F {
    fn per_million_tokens(&self, provider: ProviderKind, model: &str) -> Option<f64> {
        self(provider, model)
    }
}

/// The quotas of each user. `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Tokens per day in UTC.
    pub tokens_per_day: Option<u64>,
    /// Vectors in the user's collections.
    pub stored_vectors: Option<u64>,
    /// Unfinished jobs.
    pub concurrent_jobs: Option<u64>,
}

/// A counter that does not reset at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Vectors in the user's collections.
    StoredVectors,
    /// Unfinished jobs of the user.
    Jobs,
}

impl Counter {
    const fn as_str(self) -> &'static str {
        match self {
            Self::StoredVectors => "stored_vectors",
            Self::Jobs => "jobs",
        }
    }
}

/// The usage of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// The provider of the model.
    pub provider: ProviderKind,
    /// The provider's name for the model.
    pub model: Arc<str>,
    /// Embedded texts.
    pub texts: u64,
    /// Texts that came from the cache.
    pub cached_texts: u64,
    /// Tokens of all texts, cached texts included.
    pub tokens: u64,
    /// Tokens that the vendor charged for.
    pub billed_tokens: u64,
}

impl UsageRecord {
    /// The usage of a response, of which `cached_texts` texts came from the cache.
    pub fn from_embeddings(embeddings: &Embeddings, cached_texts: u64) -> Self {
        Self {
            provider: embeddings.served_by.provider,
            model: Arc::clone(&embeddings.served_by.name),
            texts: embeddings.tokens.len().saturating_sub(embeddings.failed.len()) as u64,
            cached_texts,
            tokens: embeddings.total_tokens(),
            billed_tokens: embeddings.billed_tokens,
        }
    }
}

/// The current usage of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// Tokens of today's completed requests.
    pub tokens_today: u64,
    /// Tokens reserved by requests in progress.
    pub tokens_reserved: u64,
    /// Stored vectors.
    pub stored_vectors: u64,
    /// Unfinished jobs.
    pub jobs: u64,
}

/// An exceeded quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// The tokens of the day, which reset after `wait`.
    Tokens {
        /// The quota.
        limit: u64,
        /// Tokens used and reserved today.
        used: u64,
        /// Time until the next day in UTC.
        wait: Duration,
    },
    /// A counter, which does not reset by time.
    Counter {
        /// The counter.
        counter: Counter,
        /// The quota.
        limit: u64,
        /// The counter's value.
        used: u64,
    },
}

/// The configuration of a ledger.
pub struct LedgerConfig {
    /// Path of the file, which is created if it does not exist.
    pub path: PathBuf,
    /// Quotas of each user.
    pub quotas: Quotas,
    /// Days after which usage is deleted.
    pub retention_days: u32,
    /// Prices of models.
    pub prices: Arc<dyn Prices>,
}

/// Quotas and usage.
pub struct Ledger {
    limits: RwLock<Limits>,
    path: PathBuf,
    writer: Writer,
}

/// The part of the configuration that can be reloaded.
#[derive(Clone)]
struct Limits {
    quotas: Quotas,
    prices: Arc<dyn Prices>,
}

impl Ledger {
    /// Opens the file, migrates its schema and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened or migrated; the message is for the operator.
    pub fn open(config: LedgerConfig) -> Result<Self, String> {
        let LedgerConfig { path, quotas, retention_days, prices } = config;
        let connection = file::open(&path).map_err(|error| error.to_string())?;
        let inline = file::open_for_inline_commits(&path).map_err(|error| error.to_string())?;
        let writer = Writer::start(connection, inline, retention_days)?;
        Ok(Self { limits: RwLock::new(Limits { quotas, prices }), path, writer })
    }

    /// The quotas of each user.
    pub fn quotas(&self) -> Quotas {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).quotas
    }

    /// Replaces quotas and prices, starting with the next request.
    pub fn update_limits(&self, quotas: Quotas, prices: Arc<dyn Prices>) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Limits { quotas, prices };
    }

    /// Reserves tokens for a request that takes at most `timeout`.
    ///
    /// # Errors
    /// When the user's tokens of the day do not suffice.
    pub async fn reserve(
        &self,
        user: &UserId,
        tokens: u64,
        timeout: Duration,
    ) -> Result<Reservation<'_>, QuotaExceeded> {
        let Some(limit) = self.quotas().tokens_per_day else {
            return Ok(Reservation::unlimited(self, user));
        };
        // The id is chosen before the writer runs, so that a request which is dropped while it waits here still returns
        // the tokens that the writer may be about to reserve.
        let Ok(id) = getrandom::u64().map(|random| (random >> 1) as i64) else {
            return Ok(Reservation::unlimited(self, user));
        };
        let mut reservation = Reservation::held(self, user, id);
        let now = Timestamp::now();
        let until = now.as_second().saturating_add_unsigned(timeout.as_secs() + 60);
        let request = token_quota::Reserve { id, user: user.shared(), tokens, limit, now, until };
        match self.writer.run(move |db| token_quota::reserve(db, &request)).await {
            // A full disk must not stop the service. The writer logs the error.
            Ok(Ok(())) | Err(()) => Ok(reservation),
            Ok(Err(used)) => {
                reservation.forget();
                Err(QuotaExceeded::Tokens { limit, used, wait: until_midnight(now) })
            }
        }
    }

    /// Adds to a counter.
    ///
    /// # Errors
    /// When the quota does not allow that much; the counter is then unchanged.
    pub async fn acquire(&self, user: &UserId, counter: Counter, count: u64) -> Result<(), QuotaExceeded> {
        let limit = match counter {
            Counter::StoredVectors => self.quotas().stored_vectors,
            Counter::Jobs => self.quotas().concurrent_jobs,
        };
        let key = counters::CounterKey { user: user.shared(), counter };
        let added = self.writer.run(move |db| counters::add(db, &key, count, limit)).await;
        match (added, limit) {
            (Ok(Err(used)), Some(limit)) => Err(QuotaExceeded::Counter { counter, limit, used }),
            _ => Ok(()),
        }
    }

    /// Subtracts from a counter, which stays at zero or above.
    pub async fn release(&self, user: &UserId, counter: Counter, count: u64) {
        let key = counters::CounterKey { user: user.shared(), counter };
        let _ = self.writer.run(move |db| counters::subtract(db, &key, count)).await;
    }

    /// Sets a counter to a value that was counted in the store.
    pub async fn set(&self, user: &UserId, counter: Counter, value: u64) {
        let key = counters::CounterKey { user: user.shared(), counter };
        let _ = self.writer.run(move |db| counters::set(db, &key, value)).await;
    }

    /// The current usage of a user.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn used(&self, user: &UserId) -> Result<UsageSnapshot, String> {
        let (user, now) = (user.shared(), Timestamp::now());
        let used = self.writer.run(move |db| counters::used(db, &user, now)).await;
        used.map_err(|()| "the usage file cannot be read; see the log".into())
    }

    /// A report of usage: one row per day, user, provider and model.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn report(&self, filter: UsageFilter) -> Result<Vec<UsageRow>, String> {
        // A long report has its own connection and thread, so that it does not delay requests.
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || report::read(&path, &filter));
        match task.await {
            Ok(rows) => rows,
            Err(error) => Err(error.to_string()),
        }
    }

    /// Deletes the data of a user. With a token quota, today's usage stays until tomorrow, so that deleting the data does
    /// not reset the quota. Returns whether today's usage stays.
    pub async fn forget(&self, user: &UserId) -> bool {
        let user = user.shared();
        let kept_day = self.quotas().tokens_per_day.map(|_| day(Timestamp::now()));
        let today_stays = kept_day.is_some();
        let _ = self.writer.run(move |db| counters::forget(db, &user, kept_day.as_deref())).await;
        today_stays
    }

    /// The cost of a request in billionths of a dollar. Sums of integers are exact.
    fn cost_nanodollars(&self, usage: &UsageRecord) -> i64 {
        let prices = Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner).prices);
        let price = prices.per_million_tokens(usage.provider, &usage.model).unwrap_or(0.0);
        (usage.billed_tokens as f64 * price * 1e3).round() as i64
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The day in UTC, in the format of the file.
fn day(now: Timestamp) -> String {
    now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn until_midnight(now: Timestamp) -> Duration {
    const DAY: i64 = 86_400;
    Duration::from_secs((DAY - now.as_second().rem_euclid(DAY)).unsigned_abs())
}

#[cfg(test)]
mod tests;
