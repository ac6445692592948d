#![doc = include_str!("../README.md")]

mod attempt_timeout;
mod batch_bisector;
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
pub use batch_bisector::BatchBisector;
pub use breaker::{
    BreakerConfig, BreakerRegistry, BreakerReport, BreakerState, BreakerTotals, CircuitBreaker, Service,
    UnknownBreaker,
};
pub use cache::{
    CacheConfig, CacheError, CacheFill, CacheLookup, CacheStats, Entry, Key, PersistentCache, RedisCache,
    Scope, SqliteCache, VectorCache,
};
pub use deadline::Deadline;
pub use dimensions::AdjustDimensions;
pub use fallback::{Fallback, FallbackModels};
pub use metrics::{
    CacheMetrics, FailureMetrics, GatewayCollector, LoadedModelsCollector, Metrics, RequestMetrics,
};
pub use model_name::hub_name;
pub use model_registry::{ModelRegistry, Stack};
pub use policy::{Policy, PolicyDenial};
pub use retry::{Jitter, Retrier, RetryConfig};
pub use router::{
    ConfiguredModel, ListedModel, ModelSelector, ResolvedModel, Router, RouterConfig, VendorModel,
};
pub use single_flight::SingleFlight;
pub use splitter::Splitter;
pub use token_decoding::{DecodeTokens, TokenDecoder, TokenEncoding};
pub use upstream_limiter::{UpstreamLimiter, UpstreamLimiterConfig, UpstreamLimiters};
pub use validate_response::ValidateResponse;
