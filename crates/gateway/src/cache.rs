//! The cache of vectors, per text: the same text is computed once. [`CacheLookup`] reads the memory, in front of
//! everything that takes time. [`CacheFill`] is around one model: it reads the memory again, because another request may
//! have filled it in the meantime, and the persistent cache behind it, and inserts what the model returns.

mod entry;
mod key;
mod persistent;
mod persistent_redis;
mod persistent_sqlite;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, ModelInfo,
};
use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

pub use entry::Entry;
pub use key::{Key, Scope};
pub(crate) use key::{Keys, variant};
pub use persistent::{CacheError, PersistentCache};
pub use persistent_redis::RedisCache;
pub use persistent_sqlite::SqliteCache;

use crate::{
    batch_parts::{self, ResponseAssembler},
    delegate::delegate_embedder,
    metrics::CacheMetrics,
};
use persistent::FailOpen;

/// The limits of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Maximum vectors in memory.
    pub entries: usize,
    /// Maximum bytes in memory. The tighter of both limits applies.
    pub bytes: usize,
    /// How long a vector is valid.
    pub ttl: Duration,
    /// Which tenants share entries.
    pub scope: Scope,
}

/// The vectors in memory and the persistent cache behind them. All models share it.
pub struct VectorCache {
    memory: Cache<Key, CachedEntry, EntryWeighter>,
    persistent: Option<FailOpen>,
    config: CacheConfig,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct CachedEntry {
    entry: Entry,
    until: Instant,
}

/// An entry weighs its bytes, and at least an equal share of the byte limit, so that neither limit can be exceeded.
#[derive(Clone)]
struct EntryWeighter {
    min_weight: u64,
}

impl Weighter<Key, CachedEntry> for EntryWeighter {
    fn weight(&self, _: &Key, kept: &CachedEntry) -> u64 {
        (kept.entry.bytes() as u64).max(self.min_weight)
    }
}

/// The size and the counters of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheStats {
    /// Vectors in memory. An expired one counts until it is read.
    pub entries: usize,
    /// Texts that were found since the start or the last clearing.
    pub hits: u64,
    /// Texts that were not found.
    pub misses: u64,
    /// The limits.
    pub config: CacheConfig,
}

impl VectorCache {
    /// An empty cache.
    pub fn new(config: CacheConfig, persistent: Option<Arc<dyn PersistentCache>>) -> Self {
        let weighter =
            EntryWeighter { min_weight: (config.bytes as u64).div_ceil(config.entries.max(1) as u64).max(1) };
        let likely = config.entries.min(config.bytes / 1024).max(1);
        Self {
            memory: Cache::with_weighter(likely, config.bytes as u64, weighter),
            persistent: persistent.map(FailOpen::new),
            config,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The current size and counters.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.memory.len(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            config: self.config,
        }
    }

    /// Removes all entries from the memory and the persistent cache, and returns their number.
    ///
    /// # Errors
    /// If the persistent cache is unavailable. Its entries may be found again later.
    pub async fn clear(&self) -> Result<u64, CacheError> {
        let entries = self.memory.len() as u64;
        self.memory.clear();
        self.hits.store(0, Relaxed);
        self.misses.store(0, Relaxed);
        let persistent_entries = match &self.persistent {
            Some(persistent) => persistent.cache.clear().await?,
            None => 0,
        };
        Ok(entries.max(persistent_entries))
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        let kept = self.memory.get(key)?;
        if kept.until > Instant::now() {
            return Some(kept.entry);
        }
        self.memory.remove(key);
        None
    }

    fn insert(&self, key: Key, entry: Entry) {
        self.memory.insert(key, CachedEntry { entry, until: Instant::now() + self.config.ttl });
    }

    fn count(&self, hits: usize, misses: usize) {
        self.hits.fetch_add(hits as u64, Relaxed);
        self.misses.fetch_add(misses as u64, Relaxed);
    }
}

/// Reads the memory, and passes on the texts that are not there.
pub struct CacheLookup {
    inner: Arc<dyn Embedder>,
    cache: Arc<VectorCache>,
    metrics: CacheMetrics,
}

impl CacheLookup {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<VectorCache>, metrics: CacheMetrics) -> Self {
        Self { inner, cache, metrics }
    }
}

impl Embedder for CacheLookup {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        // A model that is not loaded yet has no identity, which the keys need.
        let Some(identity) = self.inner.identity() else { return self.inner.embed(request) };
        let keys = Keys::new(&*self.inner, &identity, &request, self.cache.config.scope);
        let found: Vec<_> =
            request.inputs.iter().map(|input| self.cache.get(&keys.for_input(input))).collect();
        let hits = found.iter().flatten().count();
        request.context.stats.record_cache_lookup(hits, found.len() - hits);
        self.cache.count(hits, found.len() - hits);
        self.metrics.hits(hits);
        self.metrics.misses(found.len() - hits);
        if hits == 0 {
            return self.inner.embed(request);
        }
        Box::pin(async move {
            let found = Found { entries: found, model: self.model(), identity };
            match found.complete(&request, |rest| self.inner.embed(rest)).await {
                Some(answer) => answer,
                None => self.inner.embed(request).await,
            }
        })
    }
}

/// The cached part of one request.
struct Found<'a> {
    entries: Vec<Option<Entry>>,
    model: &'a Arc<ModelInfo>,
    identity: EmbeddingIdentity,
}

impl Found<'_> {
    /// The response from the cached entries and what `fetch` returns for the rest. `None` if a fallback model computed
    /// the rest: one response must not hold vectors of two spaces.
    async fn complete<F: Future<Output = Result<Embeddings, EmbedError>>>(
        self,
        request: &EmbedRequest,
        fetch: impl FnOnce(EmbedRequest) -> F,
    ) -> Option<Result<Embeddings, EmbedError>> {
        let mut whole = ResponseAssembler::new(self.entries.len());
        let mut missing = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            match entry {
                Some(entry) => whole.put(to_embeddings(entry, self.model), &[place]).ok()?,
                None => missing.push(place),
            }
        }
        if missing.is_empty() {
            request.context.stats.set_variant(|| variant(&self.identity, request).into());
        } else {
            match fetch(batch_parts::request(request, &missing)).await {
                Ok(rest) => whole.put(rest, &missing).ok()?,
                Err(error) => return Some(Err(batch_parts::error(error, &missing))),
            }
        }
        whole.finish(Vec::new()).map(Ok)
    }
}

fn to_embeddings(entry: &Entry, model: &Arc<ModelInfo>) -> Embeddings {
    Embeddings {
        data: entry.vector.to_vec(),
        dim: entry.vector.len(),
        space: entry.space.clone(),
        tokens: vec![entry.tokens],
        billed_tokens: 0,
        truncated: usize::from(entry.cut),
        failed: Vec::new(),
        served_by: Arc::clone(model),
    }
}

/// Reads the memory again and the persistent cache, and inserts what one model returns.
pub struct CacheFill {
    inner: Arc<dyn Embedder>,
    cache: Arc<VectorCache>,
    metrics: CacheMetrics,
}

impl CacheFill {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<VectorCache>, metrics: CacheMetrics) -> Self {
        Self { inner, cache, metrics }
    }

    /// The entries that the memory and the persistent cache have.
    async fn lookup(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let mut found: Vec<_> = keys.iter().map(|key| self.cache.get(key)).collect();
        let Some(persistent) = &self.cache.persistent else { return found };
        let missing: Vec<usize> = (0..keys.len()).filter(|&place| found[place].is_none()).collect();
        if missing.is_empty() {
            return found;
        }
        let wanted: Vec<Key> = missing.iter().map(|&place| keys[place]).collect();
        for (place, entry) in missing.into_iter().zip(persistent.get(&wanted).await) {
            if let Some(entry) = entry {
                self.cache.insert(keys[place], entry.clone());
                found[place] = Some(entry);
            }
        }
        found
    }

    async fn fetch(&self, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
        let answer = self.inner.embed(request.clone()).await?;
        self.insert(&request, &answer);
        Ok(answer)
    }

    /// Inserts the vectors of a response, without failed inputs.
    fn insert(&self, request: &EmbedRequest, answer: &Embeddings) {
        let Some(identity) = self.inner.identity() else { return };
        let keys = Keys::new(&*self.inner, &identity, request, self.cache.config.scope);
        let cut = batch_parts::truncated_inputs(&*self.inner, &request.inputs, answer);
        let mut entries = Vec::new();
        for (place, row) in answer.rows().enumerate() {
            if answer.failed.iter().any(|(failed, _)| *failed == place) {
                continue;
            }
            let key = keys.for_input(&request.inputs[place]);
            let entry = Entry {
                vector: row.into(),
                tokens: answer.tokens[place],
                cut: cut[place],
                space: answer.space.clone(),
            };
            if self.cache.persistent.is_some() {
                entries.push((key, entry.to_bytes()));
            }
            self.cache.insert(key, entry);
        }
        if let Some(persistent) = &self.cache.persistent {
            persistent.put(entries, self.cache.config.ttl);
        }
    }
}

impl Embedder for CacheFill {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let Some(identity) = self.inner.identity() else { return self.fetch(request).await };
            let keys = Keys::new(&*self.inner, &identity, &request, self.cache.config.scope);
            let keys: Vec<Key> = request.inputs.iter().map(|input| keys.for_input(input)).collect();
            let entries = self.lookup(&keys).await;
            let late = entries.iter().flatten().count();
            if late == 0 {
                return self.fetch(request).await;
            }
            request.context.stats.record_late_hits(late);
            self.metrics.hits(late);
            let found = Found { entries, model: self.model(), identity };
            match found.complete(&request, |rest| self.fetch(rest)).await {
                Some(answer) => answer,
                None => self.fetch(request).await,
            }
        })
    }
}
