//! A cache behind the memory: slower, larger, and it outlives the process. It may help a request and never
//! fail or delay one: it gets little time, and after a failure it is left alone for a moment.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_core::BoxFuture;
use tokio::{sync::Semaphore, time::Instant};

use super::{Entry, Key};

/// Somewhere to keep bytes under keys for a while.
pub trait SecondLevel: Send + Sync {
    /// What is kept under each key; whatever is too old is not there.
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, LevelError>>;

    /// Keeps these for so long.
    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), LevelError>>;

    /// Forgets everything; how many entries that were.
    fn clear(&self) -> BoxFuture<'_, Result<u64, LevelError>>;
}

/// The second level is away or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelError(pub String);

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LevelError {}

/// How long a request waits for it at most.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long it is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// Writes under way; more are dropped, because they only repeat work later.
const WRITES: usize = 32;

/// A second level that cannot hurt.
pub(super) struct Careful {
    pub(super) level: Arc<dyn SecondLevel>,
    shared: Arc<Shared>,
    writes: Arc<Semaphore>,
}

/// When it may be asked again, in milliseconds after `began`.
struct Shared {
    began: Instant,
    again: AtomicU64,
}

impl Careful {
    pub(super) fn new(level: Arc<dyn SecondLevel>) -> Self {
        let shared = Shared { began: Instant::now(), again: AtomicU64::new(0) };
        Self { level, shared: Arc::new(shared), writes: Arc::new(Semaphore::new(WRITES)) }
    }

    /// What it has, nothing where it is away.
    pub(super) async fn get(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let nothing = || vec![None; keys.len()];
        if !self.shared.may_be_asked() {
            return nothing();
        }
        let found = tokio::time::timeout(PATIENCE, self.level.get(keys)).await;
        match found.unwrap_or_else(|_| Err(LevelError("it does not answer".into()))) {
            Ok(found) if found.len() == keys.len() => {
                found.into_iter().map(|bytes| Entry::from_bytes(&bytes?)).collect()
            }
            Ok(_) => nothing(),
            Err(error) => {
                self.shared.failed(&error);
                nothing()
            }
        }
    }

    /// Keeps entries, in the background.
    pub(super) fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) {
        if entries.is_empty() || !self.shared.may_be_asked() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.writes).try_acquire_owned() else { return };
        let (level, shared) = (Arc::clone(&self.level), Arc::clone(&self.shared));
        tokio::spawn(async move {
            if let Err(error) = level.put(entries, ttl).await {
                shared.failed(&error);
            }
            drop(permit);
        });
    }
}

impl Shared {
    fn may_be_asked(&self) -> bool {
        self.began.elapsed().as_millis() as u64 >= self.again.load(Relaxed)
    }

    fn failed(&self, error: &LevelError) {
        let again = (self.began.elapsed() + PAUSE).as_millis() as u64;
        if self.again.swap(again, Relaxed) + 1 < again {
            tracing::warn!(%error, "the cache's second level is away; requests go on without it");
        }
    }
}
