//! What Prometheus sees of embedding: the four families of the deployment guide. The wrapper stands
//! outermost, so that a request is counted once, however it ends; failures count too.

use std::{sync::Arc, time::Instant};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Limits, ModelCard,
    ProviderKind, TokenCount,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Outcome, Counter>,
    duration: Family<Served, Histogram, fn() -> Histogram>,
    cache_hits: Family<Served, Counter>,
    active: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    provider: &'static str,
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    provider: &'static str,
    model: String,
    status: &'static str,
}

/// The label of a model that nobody serves: callers must not be able to make labels.
const OTHER: &str = "other";

impl Metrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            cache_hits: Family::default(),
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
            "active_embedding_requests",
            "Embedding requests being answered now",
            metrics.active.clone(),
        );
        metrics
    }

    /// Makes a model's series visible at zero, so that a rate can be taken from the first scrape on.
    pub fn announce(&self, provider: ProviderKind, model: &str) {
        let served = Served { provider: provider.as_str(), model: model.to_owned() };
        drop(self.requests.get_or_create(&outcome(&served, "success")));
        drop(self.duration.get_or_create(&served));
        drop(self.cache_hits.get_or_create(&served));
    }

    /// Counts a request that no model was opened for.
    pub(crate) fn refused(&self, provider: Option<ProviderKind>, error: &EmbedError) {
        let provider = provider.map_or(OTHER, ProviderKind::as_str);
        let served = Served { provider, model: OTHER.to_owned() };
        self.requests.get_or_create(&outcome(&served, status(error))).inc();
    }
}

/// Counts and times every request of one model.
pub struct Measured {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    served: Served,
}

impl Measured {
    /// Around `inner`, into `metrics`.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics) -> Self {
        let card = inner.model();
        let served = Served { provider: card.provider.as_str(), model: card.name.to_string() };
        metrics.announce(card.provider, &card.name);
        Self { served, metrics: metrics.clone(), inner }
    }
}

impl Embedder for Measured {
    fn model(&self) -> &Arc<ModelCard> {
        self.inner.model()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn count(&self, text: &str) -> TokenCount {
        self.inner.count(text)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut running = Running::begin(self);
            let answer = self.inner.embed(request).await;
            running.status = answer.as_ref().map_or_else(status, |_| "success");
            answer
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        self.inner.warm_up()
    }
}

/// A request under way. Counted when dropped, so that a caller who hangs up is counted as well.
struct Running<'a> {
    of: &'a Measured,
    began: Instant,
    status: &'static str,
}

impl<'a> Running<'a> {
    fn begin(of: &'a Measured) -> Self {
        of.metrics.active.inc();
        Self { of, began: Instant::now(), status: "cancelled" }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Measured { metrics, served, .. } = self.of;
        metrics.active.dec();
        metrics.requests.get_or_create(&outcome(served, self.status)).inc();
        metrics.duration.get_or_create(served).observe(self.began.elapsed().as_secs_f64());
    }
}

fn outcome(served: &Served, status: &'static str) -> Outcome {
    Outcome { provider: served.provider, model: served.model.clone(), status }
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

/// From a cached short query (1 ms) to the slowest allowed answer (60 s).
fn latency_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}
