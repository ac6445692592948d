//! The stack: which wrappers stand around a provider's adapter, outermost first, and why each stands there.
//! This is the one place where adapters and wrappers meet.

use std::{sync::Arc, time::Duration};

use embeddery_core::{Embedder, ProviderKind};
use embeddery_gateway::{
    AdjustDimensions, AttemptTimeout, BreakerRegistry, CacheFill, CacheLookup, CircuitBreaker, Deadline,
    DecodeTokens, FailureMetrics, Fallback, FallbackModels, Metrics, RequestMetrics, Retrier, RetryConfig,
    Scope, SingleFlight, Splitter, Stack, TokenDecoder, UpstreamLimiter, UpstreamLimiters, ValidateResponse,
    VectorCache,
};

/// The parts that the wrappers of all models share.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) metrics: Metrics,
    /// `None`: the cache is off.
    pub(crate) cache: Option<Arc<VectorCache>>,
    /// Which requests may share a computation; the same as the cache's scope.
    pub(crate) scope: Scope,
    pub(crate) decoder: Arc<TokenDecoder>,
    pub(crate) retry: RetryConfig,
    pub(crate) breakers: Arc<BreakerRegistry>,
    pub(crate) upstream_limiters: Arc<UpstreamLimiters>,
    pub(crate) attempt_timeout: Duration,
    /// Maximum parts of one request that are in flight at the same time.
    pub(crate) parallel: usize,
}

type Layer = Arc<dyn Embedder>;

/// The wrappers from the outside in: first those around a request, then those around each model that may serve it. The
/// code builds from the inside out, so each function reads from its end.
impl Stack for Layers {
    fn wrap_request(&self, model: Layer, alternatives: Option<FallbackModels>, label: &str) -> Layer {
        let mut layer = model;
        // 5. Around whole models, each with all its own wrappers: a fallback is called after a model and all its
        //    retries have failed, and its vectors are cached under its own name only.
        if let Some(alternatives) = alternatives {
            layer = Arc::new(Fallback::new(layer, alternatives, &self.metrics));
        }
        // 4. Outside the fallback, so that callers that wait for the same text also share a fallback's response.
        layer = Arc::new(SingleFlight::new(layer, self.scope));
        // 3. Before all expensive work: a cached text takes no permit and no task.
        if let Some(cache) = &self.cache {
            let provider = layer.model().provider;
            layer = Arc::new(CacheLookup::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)));
        }
        // 2. Around all work, so that no work continues for a caller that has stopped waiting.
        layer = Arc::new(Deadline(layer));
        // 1. Outermost: every request is counted once, whatever its result, including a passed deadline.
        Arc::new(RequestMetrics::new(layer, &self.metrics, label))
    }

    fn wrap_model(&self, adapter: Layer, label: &str) -> Layer {
        let provider = adapter.model().provider;
        // 15. Innermost: no other wrapper receives an invalid response.
        let mut layer: Layer = Arc::new(ValidateResponse(adapter));
        // A local model has no vendor limits, has no failures that a retry would fix, and has its own queue. 9 to 14
        // would only add cost.
        if !matches!(provider, ProviderKind::HuggingFace | ProviderKind::Onnx) {
            // 14. An attempt that hangs is ended, so that a retry has time left.
            layer = Arc::new(AttemptTimeout::new(layer, self.attempt_timeout));
            // 13. Each failed attempt is counted, also if a retry succeeds.
            layer = Arc::new(FailureMetrics::new(layer, &self.metrics, label));
            // 12. Each attempt takes a permit and returns it before the pause of a retry.
            layer = Arc::new(UpstreamLimiter::new(layer, &self.upstream_limiters));
            // 11. Inside the retry, so that a retry sees an open breaker and stops; outside the limiter, so that
            //     no request waits for a permit of a provider that is down.
            layer = Arc::new(CircuitBreaker::new(layer, &self.breakers));
            // 10. Each part is retried on its own: a part that succeeded is not sent again.
            layer = Arc::new(Retrier::new(layer, self.retry.clone()));
            // 9. Splits a request into calls within the vendor's limits.
            layer = Arc::new(Splitter::new(layer, self.parallel));
        }
        // 8. Outside the validation, so that vectors are reduced from the model's own valid response.
        layer = Arc::new(AdjustDimensions::new(layer, &self.metrics, label));
        // 7. Token ids in a request to a fallback belong to another model's tokenizer, so they are decoded to text.
        layer = Arc::new(DecodeTokens::new(layer, Arc::clone(&self.decoder)));
        // 6. Around one model, so that vectors are cached under the name of the model that computed them.
        match &self.cache {
            Some(cache) => {
                Arc::new(CacheFill::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)))
            }
            None => layer,
        }
    }
}
