#![doc = include_str!("../README.md")]

mod backoff;
mod byte_order_mark;
mod embedder;
mod embeddings;
mod error;
mod model;
mod model_source;
mod nearest_name;
mod progress;
mod rate_limit_info;
mod request;
mod request_stats;
mod token_estimate;
mod trace;
mod unit_length;
mod units;
mod upstream_server;

pub use backoff::Backoff;
pub use byte_order_mark::without_byte_order_mark;
pub use embedder::{BoxFuture, Embedder, Provider};
pub use embeddings::Embeddings;
pub use error::{EmbedError, ErrorKind, Fault, InputError, Retry};
pub use model::{
    CallLimits, EmbeddingIdentity, LocalModelInfo, ModelDescription, ModelInfo, ModelRef, ModelState,
    ModelStatus, ProviderKind, SpaceId, SupportedDimensions, TokenCount,
};
pub use model_source::{ModelSource, SourceError, SourceErrorKind};
pub use nearest_name::{nearest_name, nearest_names};
pub use progress::Progress;
pub use rate_limit_info::{RateLimitInfo, RateListener, RateWindow};
pub use request::{DimensionPolicy, EmbedRequest, Input, InputType, Priority, RequestContext, Truncate};
pub use request_stats::RequestStats;
pub use token_estimate::{
    ESTIMATE_MARGIN, EstimatedTokens, SPECIAL_TOKENS, TokenCounter, conservative_token_estimate,
    estimate_tokens,
};
pub use trace::TraceContext;
pub use unit_length::{squared_length, to_comparable_length, to_unit_length, vector_defect};
pub use units::{megabytes, to_ms};
pub use upstream_server::UpstreamServer;
