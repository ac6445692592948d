//! Prometheus metrics of embedding requests. [`RequestMetrics`] is the outermost wrapper, so that each request is counted
//! once, also when it fails; other wrappers count events that only they see. Label values are bounded: a model that is
//! neither configured nor known to its provider has the label `other`.

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

pub use collectors::{GatewayCollector, LoadedModelsCollector};

use crate::{
    delegate::delegate_embedder,
    trace::{Span, SpanAttributes},
};

/// The metric families. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<ModelLabels, Histogram, fn() -> Histogram>,
    cache_hits: Family<ModelLabels, Counter>,
    cache_misses: Family<ModelLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    fallbacks: Family<FallbackLabels, Counter>,
    policy_denied: Family<PolicyLabels, Counter>,
    adjustments: Family<DimensionLabels, Counter>,
    token_inputs: Family<TokenInputLabels, Counter>,
    vectors: Family<ModelLabels, Counter>,
    tokens: Family<ModelLabels, Counter>,
    loaded_hits: Family<LoadedLabels, Counter>,
    active: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
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

/// The label of an unknown model: callers must not be able to create label values.
pub(crate) const OTHER: &str = "other";

impl Metrics {
    /// Registers the metric families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            cache_hits: Family::default(),
            cache_misses: Family::default(),
            failures: Family::default(),
            fallbacks: Family::default(),
            policy_denied: Family::default(),
            adjustments: Family::default(),
            token_inputs: Family::default(),
            vectors: Family::default(),
            tokens: Family::default(),
            loaded_hits: Family::default(),
            active: Gauge::default(),
        };
        registry.register("embedding_requests", "Embedding requests, by outcome", metrics.requests.clone());
        registry.register(
            "embedding_request_duration_seconds",
            "Duration of embedding requests in seconds, successes and failures",
            metrics.duration.clone(),
        );
        registry.register(
            "embedding_cache_hits",
            "Texts found in the vector cache",
            metrics.cache_hits.clone(),
        );
        registry.register(
            "embedding_cache_misses",
            "Texts not found in the vector cache",
            metrics.cache_misses.clone(),
        );
        registry.register(
            "embedding_provider_failures",
            "Failed attempts at a provider, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "embedding_fallbacks",
            "Requests answered by a fallback model",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "embedding_policy_denied",
            "Requests denied by the allow-list",
            metrics.policy_denied.clone(),
        );
        registry.register(
            "embedding_dimension_adjustments",
            "Responses reduced or padded to the requested dimensions",
            metrics.adjustments.clone(),
        );
        registry.register(
            "embedding_token_inputs",
            "Requests with token ids as input",
            metrics.token_inputs.clone(),
        );
        registry.register(
            "embeddings_generated",
            "Vectors returned, cached ones included",
            metrics.vectors.clone(),
        );
        registry.register(
            "embedding_tokens",
            "Tokens of embedded texts, cached texts included",
            metrics.tokens.clone(),
        );
        registry.register(
            "embedding_model_cache_hits",
            "Requests for a local model that was already loaded",
            metrics.loaded_hits.clone(),
        );
        registry.register(
            "active_embedding_requests",
            "Embedding requests in progress",
            metrics.active.clone(),
        );
        metrics
    }

    /// Creates the time series of a model with the value zero, so that a rate is available from the first scrape.
    pub fn init_series(&self, provider: ProviderKind, model: &str) {
        let labels = ModelLabels { provider: provider.as_str(), model: model.to_owned() };
        drop(self.requests.get_or_create(&request_labels(&labels, "success")));
        drop(self.duration.get_or_create(&labels));
        drop(self.cache_hits.get_or_create(&labels));
        drop(self.cache_misses.get_or_create(&labels));
        drop(self.vectors.get_or_create(&labels));
        drop(self.tokens.get_or_create(&labels));
    }

    /// The cache counters of a model.
    pub fn cache(&self, provider: ProviderKind, label: &str) -> CacheMetrics {
        let labels = ModelLabels { provider: provider.as_str(), model: label.to_owned() };
        CacheMetrics {
            hits: self.cache_hits.get_or_create(&labels).clone(),
            misses: self.cache_misses.get_or_create(&labels).clone(),
        }
    }

    /// Counts a request that was answered by a model of provider `to` instead of `from`.
    pub(crate) fn record_fallback(&self, from: ProviderKind, to: ProviderKind) {
        let labels = FallbackLabels { from_provider: from.as_str(), to_provider: to.as_str() };
        self.fallbacks.get_or_create(&labels).inc();
    }

    /// Counts a request that the allow-list denied. `policy_type` is the list that denied it.
    pub(crate) fn record_policy_denial(
        &self,
        provider: ProviderKind,
        model: &str,
        policy_type: &'static str,
    ) {
        let labels = PolicyLabels { provider: provider.as_str(), model: model.to_owned(), policy_type };
        self.policy_denied.get_or_create(&labels).inc();
    }

    /// Counts a response whose vectors were reduced or padded.
    pub(crate) fn record_dimension_adjustment(
        &self,
        provider: ProviderKind,
        model: &str,
        method: &'static str,
    ) {
        let labels = DimensionLabels { provider: provider.as_str(), model: model.to_owned(), method };
        self.adjustments.get_or_create(&labels).inc();
    }

    /// Counts a request with token ids as input. `is_batch`: it has several inputs.
    pub(crate) fn record_token_input(&self, is_batch: bool) {
        let labels = TokenInputLabels { mode: if is_batch { "batch" } else { "single" } };
        self.token_inputs.get_or_create(&labels).inc();
    }

    /// Counts a request that failed before a model was opened. `model` is its provider and label, if they are known.
    pub(crate) fn record_rejected(&self, model: Option<(ProviderKind, &str)>, error: &EmbedError) {
        let (provider, model) = model.map_or((OTHER, OTHER), |(provider, label)| (provider.as_str(), label));
        let labels = ModelLabels { provider, model: model.to_owned() };
        self.requests.get_or_create(&request_labels(&labels, status(error))).inc();
    }
}

/// Counts and times every request to one model.
pub struct RequestMetrics {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    labels: ModelLabels,
}

impl RequestMetrics {
    /// Wraps `inner`. `label` is the model's label in metrics.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        let provider = inner.model().provider;
        let labels = ModelLabels { provider: provider.as_str(), model: label.to_owned() };
        metrics.init_series(provider, label);
        Self { labels, metrics: metrics.clone(), inner }
    }
}

impl Embedder for RequestMetrics {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut running = RunningRequest::start(self);
            let mut span = start_span("embed", 1, &self.labels, &mut request);
            if is_local(self.model().provider) && self.inner.identity().is_some() {
                let labels = LoadedLabels { model_id: self.labels.model.clone() };
                self.metrics.loaded_hits.get_or_create(&labels).inc();
            }
            let result = self.inner.embed(request).await;
            if let Ok(embeddings) = &result {
                let vectors = embeddings.tokens.len().saturating_sub(embeddings.failed.len());
                self.metrics.vectors.get_or_create(&self.labels).inc_by(vectors as u64);
                self.metrics.tokens.get_or_create(&self.labels).inc_by(embeddings.total_tokens());
            }
            running.status = result.as_ref().map_or_else(status, |_| "success");
            set_failed(&mut span, result.is_err());
            result
        })
    }
}

/// Counts the failed attempts at a provider.
pub struct FailureMetrics {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    labels: ModelLabels,
}

impl FailureMetrics {
    /// Wraps `inner`. `label` is the model's label in metrics.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        let labels = ModelLabels { provider: inner.model().provider.as_str(), model: label.to_owned() };
        Self { inner, metrics: metrics.clone(), labels }
    }
}

impl Embedder for FailureMetrics {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut span = start_span("attempt", 3, &self.labels, &mut request);
            let result = self.inner.embed(request).await;
            set_failed(&mut span, result.is_err());
            if let Err(error) = &result
                && error.fault == Fault::Upstream
            {
                let ModelLabels { provider, model } = self.labels.clone();
                let labels = FailureLabels { provider, model, reason: reason(error.kind) };
                self.metrics.failures.get_or_create(&labels).inc();
            }
            result
        })
    }
}

/// The cache counters of one model.
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

/// A request in progress. It is counted on drop, so that a cancelled request is counted as well.
struct RunningRequest<'a> {
    wrapper: &'a RequestMetrics,
    started: Instant,
    status: &'static str,
}

impl<'a> RunningRequest<'a> {
    fn start(wrapper: &'a RequestMetrics) -> Self {
        wrapper.metrics.active.inc();
        Self { wrapper, started: Instant::now(), status: "cancelled" }
    }
}

impl Drop for RunningRequest<'_> {
    fn drop(&mut self) {
        let RequestMetrics { metrics, labels, .. } = self.wrapper;
        metrics.active.dec();
        metrics.requests.get_or_create(&request_labels(labels, self.status)).inc();
        metrics.duration.get_or_create(labels).observe(self.started.elapsed().as_secs_f64());
    }
}

/// Starts a span for a request, and makes it the parent of later spans of the request. The span counts as failed until
/// [`set_failed`] is called. `kind` is OpenTelemetry's span kind.
fn start_span(
    name: &'static str,
    kind: u64,
    labels: &ModelLabels,
    request: &mut EmbedRequest,
) -> Option<Span> {
    // A request without a trace context is not traced.
    let context = request.context.trace?;
    let attributes = SpanAttributes {
        kind,
        provider: Some(labels.provider),
        model: Some(labels.model.clone()),
        inputs: Some(request.inputs.len() as u64),
        failed: true,
        ..SpanAttributes::default()
    };
    let span = Span::begin(name, Some(context), attributes)?;
    request.context.trace = Some(span.context());
    Some(span)
}

fn set_failed(span: &mut Option<Span>, failed: bool) {
    if let Some(span) = span {
        span.attributes.failed = failed;
    }
}

/// Whether models of this provider run in this process and have to be loaded.
fn is_local(provider: ProviderKind) -> bool {
    matches!(provider, ProviderKind::HuggingFace | ProviderKind::Onnx)
}

fn request_labels(labels: &ModelLabels, status: &'static str) -> RequestLabels {
    RequestLabels { provider: labels.provider, model: labels.model.clone(), status }
}

/// The value of the label `status` of a failed request.
fn status(error: &EmbedError) -> &'static str {
    match (error.kind, error.fault) {
        (ErrorKind::Timeout, _) => "timeout",
        (ErrorKind::Overloaded | ErrorKind::ModelLoading { .. }, _) => "rejected",
        (_, Fault::Caller) => "invalid",
        _ => "error",
    }
}

/// The value of the label `reason` of a failed attempt.
fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => "timeout",
        ErrorKind::RateLimited => "rate_limited",
        ErrorKind::BatchTooLarge => "too_large",
        ErrorKind::UpstreamAuth => "unauthorized",
        ErrorKind::InvalidUpstreamResponse => "bad_answer",
        ErrorKind::Unavailable => "unavailable",
        _ => "error",
    }
}

/// The buckets range from a cached short query (1 ms) to the longest request (60 s).
fn latency_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}
