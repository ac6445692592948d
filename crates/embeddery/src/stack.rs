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

/// What wrappers share.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) metrics: Metrics,
    /// `None`: the cache is off.
    pub(crate) cache: Option<Arc<VectorCache>>,
    /// Who may share a flight; as the cache's scope.
    pub(crate) scope: Scope,
    pub(crate) decoder: Arc<TokenDecoder>,
    pub(crate) retry: RetryConfig,
    pub(crate) breakers: Arc<BreakerRegistry>,
    pub(crate) upstream_limiters: Arc<UpstreamLimiters>,
    pub(crate) attempt_timeout: Duration,
    /// Parts of one request that are asked for at a time.
    pub(crate) parallel: usize,
}

type Layer = Arc<dyn Embedder>;

/// The list, from the outside in: first what stands around a request, then what stands around each model that
/// may answer it. The code builds from the inside out, so read each function from its end.
impl Stack for Layers {
    fn wrap_request(&self, model: Layer, alternatives: Option<FallbackModels>, label: &str) -> Layer {
        let mut layer = model;
        // 5. Around whole models, each with all its own wrappers: a fallback is asked when one model, its retries
        //    included, has failed, and what it answers is kept under its own name only.
        if let Some(alternatives) = alternatives {
            layer = Arc::new(Fallback::new(layer, alternatives, &self.metrics));
        }
        // 4. Outside the fallback, so that callers who wait for one text also share what a fallback answers.
        layer = Arc::new(SingleFlight::new(layer, self.scope));
        // 3. Before everything that costs: a text that is known takes no permit and no task.
        if let Some(cache) = &self.cache {
            let provider = layer.model().provider;
            layer = Arc::new(CacheLookup::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)));
        }
        // 2. Around all work, so that nothing computes for a caller who has stopped waiting.
        layer = Arc::new(Deadline(layer));
        // 1. Outermost: every request is counted once, however it ends, a deadline that passed included.
        Arc::new(RequestMetrics::new(layer, &self.metrics, label))
    }

    fn wrap_model(&self, adapter: Layer, label: &str) -> Layer {
        let provider = adapter.model().provider;
        // 15. Innermost: nothing may see an answer that cannot be right.
        let mut layer: Layer = Arc::new(ValidateResponse(adapter));
        // What runs in this process has no limits of a vendor, fails for no reason that waiting would mend, and
        // has a queue of its own: 9 to 14 would only cost.
        if !matches!(provider, ProviderKind::HuggingFace | ProviderKind::Onnx) {
            // 14. One attempt that hangs ends, so that a retry has time left.
            layer = Arc::new(AttemptTimeout::new(layer, self.attempt_timeout));
            // 13. Each attempt that failed is counted, whatever the retry makes of it.
            layer = Arc::new(FailureMetrics::new(layer, &self.metrics, label));
            // 12. Each attempt takes a permit, and gives it back while a retry pauses.
            layer = Arc::new(UpstreamLimiter::new(layer, &self.upstream_limiters));
            // 11. Inside the retry, so that a retry sees an open breaker and stops; outside the governor, so that
            //     nobody waits in line for a provider that is down.
            layer = Arc::new(CircuitBreaker::new(layer, &self.breakers));
            // 10. Each part is tried again by itself: what was answered is not asked for twice.
            layer = Arc::new(Retrier::new(layer, self.retry.clone()));
            // 9. Calls that fit the vendor's limits, whatever the caller sent.
            layer = Arc::new(Splitter::new(layer, self.parallel));
        }
        // 8. Around the whole vectors that were proven, so that a cut is made from the model's own answer.
        layer = Arc::new(AdjustDimensions::new(layer, &self.metrics, label));
        // 7. Token ids that come by way of a fallback are not this model's own.
        layer = Arc::new(DecodeTokens::new(layer, Arc::clone(&self.decoder)));
        // 6. Around one model, so that vectors are kept under the name of the model that made them.
        match &self.cache {
            Some(cache) => {
                Arc::new(CacheFill::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)))
            }
            None => layer,
        }
    }
}
