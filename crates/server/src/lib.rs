#![doc = include_str!("../README.md")]

mod access_log;
mod audit;
mod auth;
mod body;
mod client_ip;
mod collections;
mod error;
mod header_limit;
mod http_metrics;
mod jobs;
mod metering;
mod metrics_server;
mod ndjson;
mod reload;
mod reloadable_app;
mod request_id;
mod response_extras;
mod routes;
mod serve;
mod shutdown_signal;
mod tls;
mod wire;

use std::{sync::Arc, time::Duration};

use embeddery_accounts::Accounts;
use embeddery_core::DimensionPolicy;
use embeddery_gateway::{BreakerRegistry, Router, VectorCache};
use prometheus_client::registry::Registry;

pub use collections::Collections;
pub use http_metrics::ServerMetrics;
pub use ipnet::IpNet;
pub use jobs::{BacklogLimit, JobLimits, Jobs};
pub use metrics_server::{MetricsServer, serve_metrics};
pub use reload::{ReloadHandle, ReloadRequests, ReloadResult, Reloaded, reload_channel};
pub use reloadable_app::ReloadableApp;
pub use routes::{openapi, routes};
pub use serve::serve;
pub use tls::Tls;

/// The parts of the API. Clones share all state. A reload of the configuration creates an `App` with new settings and
/// accounts and the same state.
#[derive(Clone)]
pub struct App {
    /// Resolves models and embeds.
    pub router: Arc<Router>,
    /// What administrators can inspect and reset.
    pub controls: AdminControls,
    /// Authentication, rate limits, quotas, usage and the audit log.
    pub accounts: Accounts,
    /// Limits and rules.
    pub settings: Settings,
    /// Stored documents and their vectors.
    pub collections: Collections,
    /// Background jobs.
    pub jobs: Jobs,
    /// The metric families of `/metrics`.
    pub registry: Arc<Registry>,
    /// Metrics of the HTTP requests.
    pub http_metrics: ServerMetrics,
    /// Whether requests create trace spans.
    pub traced: bool,
    /// Reloads the configuration. `None` if the process cannot.
    pub reloads: Option<ReloadHandle>,
}

/// What administrators can inspect and reset.
#[derive(Clone)]
pub struct AdminControls {
    /// The circuit breakers of all providers.
    pub breakers: Arc<BreakerRegistry>,
    /// The vector cache. `None` if it is off.
    pub cache: Option<Arc<VectorCache>>,
}

/// Limits of the API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether `/metrics` requires authentication.
    pub metrics_auth: bool,
    /// Maximum time until the response. A later response is a 504.
    pub request_timeout: Duration,
    /// Maximum time for a request to arrive. A slower request is a 408.
    pub body_timeout: Duration,
    /// Maximum bytes of a body. A larger body is a 413.
    pub body_limit: usize,
    /// Maximum bytes of one text. A longer text is a 400.
    pub text_limit: usize,
    /// Maximum texts in a request. More texts are a 400.
    pub max_inputs: usize,
    /// Maximum bytes of a request's path and headers. More bytes are a 431.
    pub header_limit: usize,
    /// Networks of proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the API from a browser; `*` allows all. If empty, no page may.
    pub cors_origins: Vec<String>,
    /// Maximum open connections. Further connections wait until one ends.
    pub max_connections: usize,
    /// Certificate and key. `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// What a request's `dimensions` does below `/api/v1` if the model does not offer that length. Below `/v1` the
    /// policy is always strict.
    pub dimension_policy: DimensionPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics_auth: false,
            request_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(30),
            body_limit: 32 << 20,
            text_limit: 1 << 20,
            max_inputs: 2048,
            header_limit: 64 << 10,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            max_connections: 10_000,
            tls: None,
            dimension_policy: DimensionPolicy::Reduce,
        }
    }
}
