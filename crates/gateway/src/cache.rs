//! Vectors that were computed before, by text: a text costs once, alone or among others. [`Cached`] answers
//! from memory, in front of everything that costs; [`Filling`] stands around one model, looks once more (what
//! another request has just brought, and a second level that outlives the process), and keeps what comes.

mod entry;
mod key;
mod redis;
mod second;
mod sqlite;

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

pub use self::redis::RedisLevel;
pub use entry::Entry;
pub use key::{Key, Scope};
pub(crate) use key::{Keys, variant};
pub use second::{LevelError, SecondLevel};
pub use sqlite::SqliteLevel;

use crate::{
    batch_parts::{self, ResponseAssembler},
    delegate::delegate_embedder,
    metrics::CacheMetrics,
};
use second::Careful;

/// How much is kept, for how long, for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Most vectors in memory.
    pub entries: usize,
    /// Most bytes in memory; whichever limit is tighter holds.
    pub bytes: usize,
    /// How long a vector is good.
    pub ttl: Duration,
    /// Whom it may be served to.
    pub scope: Scope,
}

/// The vectors in memory, and the second level behind them. Shared by all models.
pub struct VectorCache {
    memory: Cache<Key, Kept, Share>,
    second: Option<Careful>,
    config: CacheConfig,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct Kept {
    entry: Entry,
    until: Instant,
}

/// Every entry weighs its bytes, and at least its share of the budget: so neither limit can be passed.
#[derive(Clone)]
struct Share {
    least: u64,
}

impl Weighter<Key, Kept> for Share {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        (kept.entry.bytes() as u64).max(self.least)
    }
}

/// The cache in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheStats {
    /// Vectors in memory; one whose time is over counts until somebody asks for it.
    pub entries: usize,
    /// Texts found since the start, or since the cache was cleared.
    pub hits: u64,
    /// Texts looked for in vain.
    pub misses: u64,
    /// The limits.
    pub config: CacheConfig,
}

impl VectorCache {
    /// An empty cache.
    pub fn new(config: CacheConfig, second: Option<Arc<dyn SecondLevel>>) -> Self {
        let share = Share { least: (config.bytes as u64).div_ceil(config.entries.max(1) as u64).max(1) };
        let likely = config.entries.min(config.bytes / 1024).max(1);
        Self {
            memory: Cache::with_weighter(likely, config.bytes as u64, share),
            second: second.map(Careful::new),
            config,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Its numbers.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.memory.len(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            config: self.config,
        }
    }

    /// Forgets everything, in both levels; how many entries that were.
    ///
    /// # Errors
    /// When the second level is away: what it holds may come back later.
    pub async fn clear(&self) -> Result<u64, LevelError> {
        let entries = self.memory.len() as u64;
        self.memory.clear();
        self.hits.store(0, Relaxed);
        self.misses.store(0, Relaxed);
        let persistent = match &self.second {
            Some(second) => second.level.clear().await?,
            None => 0,
        };
        Ok(entries.max(persistent))
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        let kept = self.memory.get(key)?;
        if kept.until > Instant::now() {
            return Some(kept.entry);
        }
        self.memory.remove(key);
        None
    }

    fn keep(&self, key: Key, entry: Entry) {
        self.memory.insert(key, Kept { entry, until: Instant::now() + self.config.ttl });
    }

    fn counted(&self, hits: usize, misses: usize) {
        self.hits.fetch_add(hits as u64, Relaxed);
        self.misses.fetch_add(misses as u64, Relaxed);
    }
}

/// Answers from memory what is there, and asks for the rest only.
pub struct Cached {
    inner: Arc<dyn Embedder>,
    cache: Arc<VectorCache>,
    metrics: CacheMetrics,
}

impl Cached {
    /// Around `inner`, with the process' cache.
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<VectorCache>, metrics: CacheMetrics) -> Self {
        Self { inner, cache, metrics }
    }
}

impl Embedder for Cached {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        // A model that is not loaded yet has no identity, so nothing of it can be told apart here.
        let Some(identity) = self.inner.identity() else { return self.inner.embed(request) };
        let keys = Keys::new(&*self.inner, &identity, &request, self.cache.config.scope);
        let found: Vec<_> = request.inputs.iter().map(|input| self.cache.get(&keys.of(input))).collect();
        let hits = found.iter().flatten().count();
        request.context.stats.record_cache_lookup(hits, found.len() - hits);
        self.cache.counted(hits, found.len() - hits);
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

/// What a cache has of one request.
struct Found<'a> {
    entries: Vec<Option<Entry>>,
    model: &'a Arc<ModelInfo>,
    identity: EmbeddingIdentity,
}

impl Found<'_> {
    /// The answer from what was found and what `fetch` brings for the rest. `None` when another model, a
    /// fallback, answered for the rest: vectors of two spaces do not belong in one answer.
    async fn complete<F: Future<Output = Result<Embeddings, EmbedError>>>(
        self,
        request: &EmbedRequest,
        fetch: impl FnOnce(EmbedRequest) -> F,
    ) -> Option<Result<Embeddings, EmbedError>> {
        let mut whole = ResponseAssembler::new(self.entries.len());
        let mut missing = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            match entry {
                Some(entry) => whole.put(one(entry, self.model), &[place]).ok()?,
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

fn one(entry: &Entry, model: &Arc<ModelInfo>) -> Embeddings {
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

/// Looks once more, and keeps what one model answers.
pub struct Filling {
    inner: Arc<dyn Embedder>,
    cache: Arc<VectorCache>,
    metrics: CacheMetrics,
}

impl Filling {
    /// Around `inner`, into the process' cache.
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<VectorCache>, metrics: CacheMetrics) -> Self {
        Self { inner, cache, metrics }
    }

    /// What memory and the second level have by now.
    async fn look(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let mut found: Vec<_> = keys.iter().map(|key| self.cache.get(key)).collect();
        let Some(second) = &self.cache.second else { return found };
        let missing: Vec<usize> = (0..keys.len()).filter(|&place| found[place].is_none()).collect();
        if missing.is_empty() {
            return found;
        }
        let wanted: Vec<Key> = missing.iter().map(|&place| keys[place]).collect();
        for (place, entry) in missing.into_iter().zip(second.get(&wanted).await) {
            if let Some(entry) = entry {
                self.cache.keep(keys[place], entry.clone());
                found[place] = Some(entry);
            }
        }
        found
    }

    async fn fetch(&self, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
        let answer = self.inner.embed(request.clone()).await?;
        self.keep(&request, &answer);
        Ok(answer)
    }

    /// Keeps what was answered, failed inputs left out.
    fn keep(&self, request: &EmbedRequest, answer: &Embeddings) {
        let Some(identity) = self.inner.identity() else { return };
        let keys = Keys::new(&*self.inner, &identity, request, self.cache.config.scope);
        let cut = batch_parts::truncated_inputs(&*self.inner, &request.inputs, answer);
        let mut kept = Vec::new();
        for (place, row) in answer.rows().enumerate() {
            if answer.failed.iter().any(|(failed, _)| *failed == place) {
                continue;
            }
            let key = keys.of(&request.inputs[place]);
            let entry = Entry {
                vector: row.into(),
                tokens: answer.tokens[place],
                cut: cut[place],
                space: answer.space.clone(),
            };
            if self.cache.second.is_some() {
                kept.push((key, entry.to_bytes()));
            }
            self.cache.keep(key, entry);
        }
        if let Some(second) = &self.cache.second {
            second.put(kept, self.cache.config.ttl);
        }
    }
}

impl Embedder for Filling {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let Some(identity) = self.inner.identity() else { return self.fetch(request).await };
            let keys = Keys::new(&*self.inner, &identity, &request, self.cache.config.scope);
            let keys: Vec<Key> = request.inputs.iter().map(|input| keys.of(input)).collect();
            let entries = self.look(&keys).await;
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
