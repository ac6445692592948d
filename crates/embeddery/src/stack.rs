//! The order of the wrappers around a provider's adapter, with a reason for the position of each. Only this module
//! combines adapters and wrappers.

use std::{sync::Arc, time::Duration};

use embeddery_core::{Embedder, ProviderKind};
use embeddery_gateway::{
    AdjustDimensions, AttemptTimeout, BreakerRegistry, CacheFill, CacheLookup, CircuitBreaker, Deadline,
    DecodeTokens, FailureMetrics, Fallback, FallbackModels, Metrics, RequestMetrics, Retrier, RetryConfig,
    Scope, SingleFlight, Splitter, Stack, TokenDecoder, UpstreamLimiter, UpstreamLimiters, ValidateResponse,
    VectorCache,
};

/// The state and settings that the wrappers of all models share.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) metrics: Metrics,
    /// The cache of vectors; `None` if it is off.
    pub(crate) cache: Option<Arc<VectorCache>>,
    /// The requests that may share one computation. It equals the scope of the cache.
    pub(crate) scope: Scope,
    pub(crate) decoder: Arc<TokenDecoder>,
    pub(crate) retry: RetryConfig,
    pub(crate) breakers: Arc<BreakerRegistry>,
    pub(crate) upstream_limiters: Arc<UpstreamLimiters>,
    pub(crate) attempt_timeout: Duration,
    /// Maximum calls of one request that run at the same time.
    pub(crate) parallel: usize,
}

type Layer = Arc<dyn Embedder>;

/// A wrapper with a lower number is further outside: 1 to 5 are around a request, 6 to 15 are around each model that may
/// serve it. A wrapper is built after the one inside it, so the numbers decrease in each function.
impl Stack for Layers {
    fn wrap_request(&self, model: Layer, alternatives: Option<FallbackModels>, label: &str) -> Layer {
        let mut layer = model;
        // 5. Outside the wrappers of each model: a fallback is called only after all retries of the model before it have
        //    failed, and its vectors are cached only under its own name.
        if let Some(alternatives) = alternatives {
            layer = Arc::new(Fallback::new(layer, alternatives, &self.metrics));
        }
        // 4. Outside the fallback, so that requests for the same text also share the response of a fallback.
        layer = Arc::new(SingleFlight::new(layer, self.scope));
        // 3. Outside 4 and 5, so that a cached text needs no shared computation and no call of a model.
        if let Some(cache) = &self.cache {
            let provider = layer.model().provider;
            layer = Arc::new(CacheLookup::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)));
        }
        // 2. Outside the cache and all calls, so that no work continues after the deadline of the request.
        layer = Arc::new(Deadline(layer));
        // 1. Outermost, so that each request is counted once with its result, also if its deadline has passed.
        Arc::new(RequestMetrics::new(layer, &self.metrics, label))
    }

    fn wrap_model(&self, adapter: Layer, label: &str) -> Layer {
        let provider = adapter.model().provider;
        // 15. Innermost, so that no other wrapper receives an invalid response.
        let mut layer: Layer = Arc::new(ValidateResponse(adapter));
        // 9 to 14 are for remote providers only. A local model has no vendor limits, its failures do not end by a
        // retry, and it has its own queue.
        if !matches!(provider, ProviderKind::HuggingFace | ProviderKind::Onnx) {
            // 14. Inside the retry, so that an attempt that hangs ends early enough for another one.
            layer = Arc::new(AttemptTimeout::new(layer, self.attempt_timeout));
            // 13. Inside the retry, so that each failed attempt is counted, also if a later one succeeds.
            layer = Arc::new(FailureMetrics::new(layer, &self.metrics, label));
            // 12. Inside the retry, so that no permit is held during the delay before the next attempt.
            layer = Arc::new(UpstreamLimiter::new(layer, &self.upstream_limiters));
            // 11. Inside the retry, so that the retries stop when the breaker opens. Outside the limiter, so that no
            //     request waits for a permit of a server that is unavailable.
            layer = Arc::new(CircuitBreaker::new(layer, &self.breakers));
            // 10. Inside the splitter, so that a call that succeeded is not repeated when another one failed.
            layer = Arc::new(Retrier::new(layer, self.retry.clone()));
            // 9. Outside all wrappers of a call: it splits a request into calls within the vendor's limits.
            layer = Arc::new(Splitter::new(layer, self.parallel));
        }
        // 8. Outside the validation, so that only validated vectors are reduced or padded.
        layer = Arc::new(AdjustDimensions::new(layer, &self.metrics, label));
        // 7. Around each model, because token ids in a request to a fallback may belong to the tokenizer of another
        //    model. They are decoded to text.
        layer = Arc::new(DecodeTokens::new(layer, Arc::clone(&self.decoder)));
        // 6. Around each model, so that vectors are cached under the name of the model that computed them.
        match &self.cache {
            Some(cache) => {
                Arc::new(CacheFill::new(layer, Arc::clone(cache), self.metrics.cache(provider, label)))
            }
            None => layer,
        }
    }
}
