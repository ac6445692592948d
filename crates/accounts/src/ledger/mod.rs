//! Quotas and usage, in one SQLite file that several processes of a host may share.
//!
//! A request reserves the tokens it will about need, and settles what it really took when it is answered; when
//! it fails, or its caller hangs up, or its process dies, the reservation is given back. Settled usage is on
//! disk before the answer is sent: a process that is killed forgets nothing that anybody was told.

mod file;
mod operations;
mod report;
mod reservation;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use embeddery_core::{Embeddings, ProviderKind};
use jiff::Timestamp;

use crate::UserId;
pub use report::{Filter, Row};
pub use reservation::Reservation;
use writer::Writer;

/// What a model costs.
pub trait Prices: Send + Sync {
    /// Dollars for a million tokens; `None` when nobody knows. Local models cost nothing.
    fn per_million_tokens(&self, provider: ProviderKind, model: &str) -> Option<f64>;
}

impl<F: Fn(ProviderKind, &str) -> Option<f64> + Send + Sync> Prices for F {
    fn per_million_tokens(&self, provider: ProviderKind, model: &str) -> Option<f64> {
        self(provider, model)
    }
}

/// What a user may have. `None`: as much as they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Tokens in a day of UTC.
    pub tokens_per_day: Option<u64>,
    /// Vectors in their collections.
    pub stored_vectors: Option<u64>,
    /// Jobs that are not finished.
    pub concurrent_jobs: Option<u64>,
}

/// What is counted and does not go away with the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Vectors in the user's collections.
    StoredVectors,
    /// Jobs of the user that are not finished.
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

/// What one request took.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// Who served.
    pub provider: ProviderKind,
    /// The provider's name for the model.
    pub model: Arc<str>,
    /// Texts that were answered.
    pub texts: u64,
    /// How many of them came from the cache.
    pub cached_texts: u64,
    /// Tokens the model reads in these texts, cached ones too.
    pub tokens: u64,
    /// Tokens a vendor charged for.
    pub billed_tokens: u64,
}

impl Spent {
    /// What an answer took; `cached_texts` of its texts came from the cache.
    pub fn of(answer: &Embeddings, cached_texts: u64) -> Self {
        Self {
            provider: answer.served_by.provider,
            model: Arc::clone(&answer.served_by.name),
            texts: answer.tokens.len().saturating_sub(answer.failed.len()) as u64,
            cached_texts,
            tokens: answer.total_tokens(),
            billed_tokens: answer.billed_tokens,
        }
    }
}

/// Where a user stands against their quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens settled today.
    pub tokens_today: u64,
    /// Tokens of requests under way.
    pub tokens_reserved: u64,
    /// Vectors stored.
    pub stored_vectors: u64,
    /// Jobs not finished.
    pub jobs: u64,
}

/// Which quota does not allow more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Tokens; there are new ones after this long.
    Tokens {
        /// The quota.
        limit: u64,
        /// Settled and reserved.
        used: u64,
        /// Until the next day of UTC.
        wait: Duration,
    },
    /// A counter; waiting changes nothing.
    Counter {
        /// Which.
        counter: Counter,
        /// The quota.
        limit: u64,
        /// What there is.
        used: u64,
    },
}

/// Where the ledger lies and what holds.
pub struct LedgerConfig {
    /// The file; made when it is not there.
    pub path: PathBuf,
    /// What every user may have.
    pub quotas: Quotas,
    /// Days after which usage is forgotten.
    pub retention_days: u32,
    /// What models cost.
    pub prices: Arc<dyn Prices>,
}

/// Quotas and usage.
pub struct Ledger {
    rules: RwLock<Rules>,
    path: PathBuf,
    writer: Writer,
}

/// What may change while requests are counted.
#[derive(Clone)]
struct Rules {
    quotas: Quotas,
    prices: Arc<dyn Prices>,
}

impl Ledger {
    /// Opens the file, brings it to the present schema, starts its writer.
    ///
    /// # Errors
    /// When the file cannot be used, with the reason for an operator.
    pub fn open(config: LedgerConfig) -> Result<Self, String> {
        let LedgerConfig { path, quotas, retention_days, prices } = config;
        let connection = file::open(&path).map_err(|error| error.to_string())?;
        let inline = file::open_for_inline_commits(&path).map_err(|error| error.to_string())?;
        let writer = Writer::start(connection, inline, retention_days)?;
        Ok(Self { rules: RwLock::new(Rules { quotas, prices }), path, writer })
    }

    /// What every user may have.
    pub fn quotas(&self) -> Quotas {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).quotas
    }

    /// From the next request on these quotas and prices hold.
    pub fn rule(&self, quotas: Quotas, prices: Arc<dyn Prices>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules { quotas, prices };
    }

    /// Sets tokens aside for a request that is done within `within`.
    ///
    /// # Errors
    /// When the user's day has not that many left.
    pub async fn reserve(
        &self,
        user: &UserId,
        tokens: u64,
        within: Duration,
    ) -> Result<Reservation<'_>, Exhausted> {
        let Some(limit) = self.quotas().tokens_per_day else {
            return Ok(Reservation::unlimited(self, user));
        };
        // The caller chooses the id, so that a request which is dropped while it waits here gives back what the
        // writer may be about to set aside.
        let Ok(id) = getrandom::u64().map(|random| (random >> 1) as i64) else {
            return Ok(Reservation::unlimited(self, user));
        };
        let mut reservation = Reservation::held(self, user, id);
        let now = Timestamp::now();
        let until = now.as_second().saturating_add_unsigned(within.as_secs() + 60);
        let asked = operations::Reserve { id, user: user.shared(), tokens, limit, now, until };
        match self.writer.run(move |db| operations::reserve(db, &asked)).await {
            // A disk that is full is no reason to stop answering; the log tells.
            Ok(Ok(())) | Err(()) => Ok(reservation),
            Ok(Err(used)) => {
                reservation.forget();
                Err(Exhausted::Tokens { limit, used, wait: until_midnight(now) })
            }
        }
    }

    /// Adds to a counter.
    ///
    /// # Errors
    /// When the quota does not allow that many; nothing is added then.
    pub async fn take(&self, user: &UserId, counter: Counter, count: u64) -> Result<(), Exhausted> {
        let limit = match counter {
            Counter::StoredVectors => self.quotas().stored_vectors,
            Counter::Jobs => self.quotas().concurrent_jobs,
        };
        let user = user.shared();
        let taken = self.writer.run(move |db| operations::count(db, (&user, counter), (count, limit))).await;
        match (taken, limit) {
            (Ok(Err(used)), Some(limit)) => Err(Exhausted::Counter { counter, limit, used }),
            _ => Ok(()),
        }
    }

    /// Takes away from a counter, which never falls below zero.
    pub async fn give_back(&self, user: &UserId, counter: Counter, count: u64) {
        let user = user.shared();
        let _ = self.writer.run(move |db| operations::uncount(db, (&user, counter), count)).await;
    }

    /// Sets a counter to what was counted anew.
    pub async fn set(&self, user: &UserId, counter: Counter, count: u64) {
        let user = user.shared();
        let _ = self.writer.run(move |db| operations::set_count(db, (&user, counter), count)).await;
    }

    /// Where a user stands.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn used(&self, user: &UserId) -> Result<Used, String> {
        let (user, now) = (user.shared(), Timestamp::now());
        let used = self.writer.run(move |db| operations::used(db, &user, now)).await;
        used.map_err(|()| "the usage file cannot be read; the log knows more".into())
    }

    /// What was used: one row for each day, user, provider and model.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn report(&self, filter: Filter) -> Result<Vec<Row>, String> {
        // On a connection and a thread of its own: a long report must not keep requests waiting.
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || report::read(&path, &filter));
        match task.await {
            Ok(rows) => rows,
            Err(error) => Err(error.to_string()),
        }
    }

    /// Forgets everything of a user; where tokens of a day are limited, today's stay until tomorrow, so that nobody
    /// gets new ones by leaving. Whether they did.
    pub async fn forget(&self, user: &UserId) -> bool {
        let user = user.shared();
        let kept = self.quotas().tokens_per_day.map(|_| day(Timestamp::now()));
        let stays = kept.is_some();
        let _ = self.writer.run(move |db| operations::forget(db, &user, kept.as_deref())).await;
        stays
    }

    /// The cost of tokens in billionths of a dollar: integers add up exactly.
    fn cost(&self, spent: &Spent) -> i64 {
        let prices = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner).prices);
        let price = prices.per_million_tokens(spent.provider, &spent.model).unwrap_or(0.0);
        (spent.billed_tokens as f64 * price * 1e3).round() as i64
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The day of UTC, as it stands in the file.
fn day(now: Timestamp) -> String {
    now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn until_midnight(now: Timestamp) -> Duration {
    const DAY: i64 = 86_400;
    Duration::from_secs((DAY - now.as_second().rem_euclid(DAY)).unsigned_abs())
}

#[cfg(test)]
mod tests;
