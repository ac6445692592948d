//! Who serves a model ([`Router`]), and the wrappers that make any [`Embedder`](embeddery_core::Embedder)
//! good. A wrapper is an embedder around another one; the binary's `stack.rs` says in which order they stand.
//! Nothing here knows HTTP, and nothing here knows what a provider does.

mod attempt_timeout;
mod batch_parts;
mod breaker;
mod cache;
mod deadline;
mod delegate;
mod dimensions;
mod fallback;
mod metrics;
mod model_name;
mod model_registry;
mod policy;
mod retry;
mod router;
mod single_flight;
mod splitter;
mod token_decoding;
pub mod trace;
mod upstream_limiter;
mod validate_response;

pub use attempt_timeout::AttemptTimeout;
pub use breaker::{
    Breaker, BreakerConfig, BreakerRegistry, BreakerReport, BreakerState, CircuitBreaker, Totals,
};
pub use cache::{
    CacheConfig, CacheStats, Cached, Entry, Filling, Key, LevelError, RedisLevel, Scope, SecondLevel,
    SqliteLevel, VectorCache,
};
pub use deadline::Deadline;
pub use dimensions::AdjustDimensions;
pub use fallback::{Fallback, FallbackModels};
pub use metrics::{CacheMetrics, Collected, FailureMetrics, LoadedModels, Metrics, RequestMetrics};
pub use model_name::hub_name;
pub use model_registry::{ModelRegistry, Stack};
pub use policy::{Denied, Policy};
pub use retry::{Jitter, RetryConfig, Retrying};
pub use router::{
    ConfiguredModel, ListedModel, ModelSelector, ResolvedModel, Router, RouterConfig, VendorModel,
};
pub use single_flight::SingleFlight;
pub use splitter::Splitter;
pub use token_decoding::{DecodeTokens, TokenDecoder, TokenEncoding};
pub use upstream_limiter::{GovernorConfig, Governors, RateLimited};
pub use validate_response::ValidateResponse;
