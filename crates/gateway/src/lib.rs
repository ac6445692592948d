//! Who serves a model ([`Router`]), and the wrappers that make any [`Embedder`](embeddery_core::Embedder)
//! good. A wrapper is an embedder around another one; the binary's `stack.rs` says in which order they stand.
//! Nothing here knows HTTP, and nothing here knows what a provider does.

mod attempt_timeout;
mod breaker;
mod cache;
mod deadline;
mod dimensions;
mod fallback;
mod flight;
mod governor;
mod integrity;
mod metrics;
mod names;
mod opener;
mod policy;
mod retry;
mod router;
mod splitter;
mod subset;
mod tokens;
pub mod trace;
mod wrapper;

pub use attempt_timeout::AttemptTimeout;
pub use breaker::{Breaker, BreakerConfig, BreakerReport, BreakerState, Breakers, Breaking, Totals};
pub use cache::{
    CacheConfig, CacheError, CacheFill, CacheLookup, CacheStats, Entry, Key, PersistentCache, RedisCache,
    Scope, SqliteCache, VectorCache,
};
pub use deadline::Deadline;
pub use dimensions::Dimensions;
pub use fallback::{Alternatives, Fallback};
pub use flight::SingleFlight;
pub use governor::{Governed, GovernorConfig, Governors};
pub use integrity::Integrity;
pub use metrics::{CacheMetrics, Collected, CountingFailures, LoadedModels, Measured, Metrics};
pub use names::hub_name;
pub use opener::{Opener, Stack};
pub use policy::{Denied, Policy};
pub use retry::{Jitter, RetryConfig, Retrying};
pub use router::{ConfiguredModel, ListedModel, Resolved, Router, RouterConfig, Selector, VendorModel};
pub use splitter::Splitter;
pub use tokens::{Decoding, TokenDecoder, TokenEncoding};
