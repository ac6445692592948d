//! What Prometheus sees of embedding. [`RequestMetrics`] stands outermost, so that a request is counted once, however
//! it ends, failures too; the other wrappers count here what only they see. Labels are bounded: a model that is
//! neither configured nor known to its provider is `other`.

mod collectors;

use std::{sync::Arc, time::Instant};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, ProviderKind,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use collectors::{Collected, LoadedModels};

use crate::{
    delegate::delegate_embedder,
    trace::{Span, SpanAttributes},
};

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<ModelLabels, Histogram, fn() -> Histogram>,
    cache_hits: Family<ModelLabels, Counter>,
    cache_misses: Family<ModelLabels, Counter>,
    failures: Family<Failure, Counter>,
    fallbacks: Family<FallbackLabels, Counter>,
    denied: Family<PolicyLabels, Counter>,
    adjustments: Family<DimensionLabels, Counter>,
    token_inputs: Family<TokenInputLabels, Counter>,
    vectors: Family<ModelLabels, Counter>,
    tokens: Family<ModelLabels, Counter>,
    found_loaded: Family<LoadedLabels, Counter>,
    active: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    provider: &'static str,
    model: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FallbackLabels {
    from_provider: &'static str,
    to_provider: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    provider: &'static str,
    model: String,
    policy_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DimensionLabels {
    provider: &'static str,
    model: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenInputLabels {
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadedLabels {
    model_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    provider: &'static str,
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    provider: &'static str,
    model: String,
    status: &'static str,
}

/// The label of a model that nobody serves: callers must not be able to make labels.
pub(crate) const OTHER: &str = "other";

impl Metrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            cache_hits: Family::default(),
            cache_misses: Family::default(),
            failures: Family::default(),
            fallbacks: Family::default(),
            denied: Family::default(),
            adjustments: Family::default(),
            token_inputs: Family::default(),
            vectors: Family::default(),
            tokens: Family::default(),
            found_loaded: Family::default(),
            active: Gauge::default(),
        };
        registry.register("embedding_requests", "Embedding requests, by outcome", metrics.requests.clone());
        registry.register(
            "embedding_request_duration_seconds",
            "Time from request to vectors, successes and failures",
            metrics.duration.clone(),
        );
        registry.register(
            "embedding_cache_hits",
            "Texts answered from the cache",
            metrics.cache_hits.clone(),
        );
        registry.register(
            "embedding_cache_misses",
            "Texts looked for in the cache in vain",
            metrics.cache_misses.clone(),
        );
        registry.register(
            "embedding_provider_failures",
            "Attempts at a provider that failed, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "embedding_fallbacks",
            "Requests that another provider's model answered",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "embedding_policy_denied",
            "Requests that the allow-list refused",
            metrics.denied.clone(),
        );
        registry.register(
            "embedding_dimension_adjustments",
            "Answers cut or filled to the wanted length",
            metrics.adjustments.clone(),
        );
        registry.register(
            "embedding_token_inputs",
            "Requests whose input was token ids",
            metrics.token_inputs.clone(),
        );
        registry.register(
            "embeddings_generated",
            "Vectors answered, cached ones included",
            metrics.vectors.clone(),
        );
        registry.register(
            "embedding_tokens",
            "Tokens that models read for answers, cached texts included",
            metrics.tokens.clone(),
        );
        registry.register(
            "embedding_model_cache_hits",
            "Requests that found their model of this machine in memory",
            metrics.found_loaded.clone(),
        );
        registry.register(
            "active_embedding_requests",
            "Embedding requests being answered now",
            metrics.active.clone(),
        );
        metrics
    }

    /// Makes a model's series visible at zero, so that a rate can be taken from the first scrape on.
    pub fn init_series(&self, provider: ProviderKind, model: &str) {
        let served = ModelLabels { provider: provider.as_str(), model: model.to_owned() };
        drop(self.requests.get_or_create(&outcome(&served, "success")));
        drop(self.duration.get_or_create(&served));
        drop(self.cache_hits.get_or_create(&served));
        drop(self.cache_misses.get_or_create(&served));
        drop(self.vectors.get_or_create(&served));
        drop(self.tokens.get_or_create(&served));
    }

    /// A model's cache counters.
    pub fn cache(&self, provider: ProviderKind, label: &str) -> CacheMetrics {
        let served = ModelLabels { provider: provider.as_str(), model: label.to_owned() };
        CacheMetrics {
            hits: self.cache_hits.get_or_create(&served).clone(),
            misses: self.cache_misses.get_or_create(&served).clone(),
        }
    }

    /// Another provider's model answered.
    pub(crate) fn fell_back(&self, from: ProviderKind, to: ProviderKind) {
        let fell = FallbackLabels { from_provider: from.as_str(), to_provider: to.as_str() };
        self.fallbacks.get_or_create(&fell).inc();
    }

    /// The allow-list refused a request; `by` is what it went by.
    pub(crate) fn refused_by_policy(&self, provider: ProviderKind, model: &str, by: &'static str) {
        let denied = PolicyLabels { provider: provider.as_str(), model: model.to_owned(), policy_type: by };
        self.denied.get_or_create(&denied).inc();
    }

    /// An answer was cut or filled.
    pub(crate) fn adjusted(&self, provider: ProviderKind, model: &str, method: &'static str) {
        let adjusted = DimensionLabels { provider: provider.as_str(), model: model.to_owned(), method };
        self.adjustments.get_or_create(&adjusted).inc();
    }

    /// A request came as token ids: one list of them, or several.
    pub(crate) fn token_input(&self, several: bool) {
        self.token_inputs
            .get_or_create(&TokenInputLabels { mode: if several { "batch" } else { "single" } })
            .inc();
    }

    /// Counts a request that no model was opened for.
    pub(crate) fn refused(&self, named: Option<(ProviderKind, &str)>, error: &EmbedError) {
        let (provider, model) = named.map_or((OTHER, OTHER), |(provider, label)| (provider.as_str(), label));
        let served = ModelLabels { provider, model: model.to_owned() };
        self.requests.get_or_create(&outcome(&served, status(error))).inc();
    }
}

/// Counts and times every request of one model.
pub struct RequestMetrics {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    served: ModelLabels,
}

impl RequestMetrics {
    /// Around `inner`, into `metrics`, under this label.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        let provider = inner.model().provider;
        let served = ModelLabels { provider: provider.as_str(), model: label.to_owned() };
        metrics.init_series(provider, label);
        Self { served, metrics: metrics.clone(), inner }
    }
}

impl Embedder for RequestMetrics {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut running = Running::begin(self);
            let served = (self.served.provider, self.served.model.as_str());
            let mut span = traced("embed", 1, served, &mut request);
            if is_local(self.model().provider) && self.inner.identity().is_some() {
                let loaded = LoadedLabels { model_id: self.served.model.clone() };
                self.metrics.found_loaded.get_or_create(&loaded).inc();
            }
            let answer = self.inner.embed(request).await;
            if let Ok(embeddings) = &answer {
                let vectors = embeddings.tokens.len().saturating_sub(embeddings.failed.len());
                self.metrics.vectors.get_or_create(&self.served).inc_by(vectors as u64);
                self.metrics.tokens.get_or_create(&self.served).inc_by(embeddings.total_tokens());
            }
            running.status = answer.as_ref().map_or_else(status, |_| "success");
            end(&mut span, answer.is_err());
            answer
        })
    }
}

/// Counts the attempts at a provider that fail.
pub struct FailureMetrics {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    label: String,
}

impl FailureMetrics {
    /// Around `inner`, into `metrics`, under this label.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        Self { inner, metrics: metrics.clone(), label: label.to_owned() }
    }
}

impl Embedder for FailureMetrics {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let served = (self.model().provider.as_str(), self.label.as_str());
            let mut span = traced("attempt", 3, served, &mut request);
            let answer = self.inner.embed(request).await;
            end(&mut span, answer.is_err());
            if let Err(error) = &answer
                && error.fault == Fault::Upstream
            {
                let provider = self.model().provider.as_str();
                let failure = Failure { provider, model: self.label.clone(), reason: reason(error.kind) };
                self.metrics.failures.get_or_create(&failure).inc();
            }
            answer
        })
    }
}

/// One model's hits and misses.
#[derive(Clone)]
pub struct CacheMetrics {
    hits: Counter,
    misses: Counter,
}

impl CacheMetrics {
    pub(crate) fn hits(&self, texts: usize) {
        self.hits.inc_by(texts as u64);
    }

    pub(crate) fn misses(&self, texts: usize) {
        self.misses.inc_by(texts as u64);
    }
}

/// A request under way. Counted when dropped, so that a caller who hangs up is counted as well.
struct Running<'a> {
    of: &'a RequestMetrics,
    began: Instant,
    status: &'static str,
}

impl<'a> Running<'a> {
    fn begin(of: &'a RequestMetrics) -> Self {
        of.metrics.active.inc();
        Self { of, began: Instant::now(), status: "cancelled" }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let RequestMetrics { metrics, served, .. } = self.of;
        metrics.active.dec();
        metrics.requests.get_or_create(&outcome(served, self.status)).inc();
        metrics.duration.get_or_create(served).observe(self.began.elapsed().as_secs_f64());
    }
}

/// A span around a request; what is done for it is a part of the span. One that is dropped unended has failed.
fn traced(
    name: &'static str,
    kind: u64,
    (provider, model): (&'static str, &str),
    request: &mut EmbedRequest,
) -> Option<Span> {
    // Nobody collects the parts of work that nobody collects.
    let context = request.context.trace?;
    let mut span = Span::begin(name, Some(context), SpanAttributes { kind, ..SpanAttributes::default() })?;
    span.facts.provider = Some(provider);
    span.facts.model = Some(model.to_owned());
    span.facts.inputs = Some(request.inputs.len() as u64);
    span.facts.failed = true;
    request.context.trace = Some(span.context());
    Some(span)
}

fn end(span: &mut Option<Span>, failed: bool) {
    if let Some(span) = span {
        span.facts.failed = failed;
    }
}

/// Models of this process have to be loaded; those elsewhere always are.
fn is_local(provider: ProviderKind) -> bool {
    matches!(provider, ProviderKind::HuggingFace | ProviderKind::Onnx)
}

fn outcome(served: &ModelLabels, status: &'static str) -> RequestLabels {
    RequestLabels { provider: served.provider, model: served.model.clone(), status }
}

/// The `status` label of a failure.
fn status(error: &EmbedError) -> &'static str {
    match (error.kind, error.fault) {
        (ErrorKind::Timeout, _) => "timeout",
        (ErrorKind::Overloaded | ErrorKind::ModelLoading { .. }, _) => "rejected",
        (_, Fault::Caller) => "invalid",
        _ => "error",
    }
}

/// The `reason` label of a provider's failure.
fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => "timeout",
        ErrorKind::RateLimited => "rate_limited",
        ErrorKind::BatchTooLarge => "too_large",
        ErrorKind::UpstreamAuth => "unauthorized",
        ErrorKind::BadUpstreamAnswer => "bad_answer",
        ErrorKind::Unavailable => "unavailable",
        _ => "error",
    }
}

/// From a cached short query (1 ms) to the slowest allowed answer (60 s).
fn latency_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}
