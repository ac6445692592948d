//! The HTTP API. Wire types, statuses and limits live here and nowhere else; what an embedding is, the
//! [`gateway`](embeddery_gateway) knows. Routes are grouped by resource in `routes`, every failure becomes
//! an answer in `error`, and [`mod@serve`] is the loop that accepts connections.

mod access_log;
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
mod routes;
mod serve;
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
pub use metrics_server::{MetricsServer, monitor};
pub use reload::{ReloadHandle, ReloadRequests, Reloaded, reloads};
pub use reloadable_app::ReloadableApp;
pub use routes::{openapi, routes};
pub use serve::serve;
pub use tls::Tls;

/// What the API is made of. Clones share all that lasts; settings and accounts may be other ones after the
/// configuration was read anew.
#[derive(Clone)]
pub struct App {
    /// Who serves models.
    pub router: Arc<Router>,
    /// What an administrator may look at and change.
    pub controls: AdminControls,
    /// Who may ask, how much, and what it cost.
    pub accounts: Accounts,
    /// Limits and rules.
    pub settings: Settings,
    /// Vectors that are kept.
    pub collections: Collections,
    /// Documents that are worked on while nobody waits.
    pub jobs: Jobs,
    /// What /metrics shows.
    pub registry: Arc<Registry>,
    /// Counts answers.
    pub http_metrics: ServerMetrics,
    /// Whether traces are collected.
    pub traced: bool,
    /// Whoever reads the configuration anew; `None` where nobody does.
    pub reloads: Option<ReloadHandle>,
}

/// What an administrator may look at and change.
#[derive(Clone)]
pub struct AdminControls {
    /// The breakers of all providers.
    pub breakers: Arc<BreakerRegistry>,
    /// The cache; `None` where it is off.
    pub cache: Option<Arc<VectorCache>>,
}

/// Limits and rules of the API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether /metrics asks for the key.
    pub metrics_auth: bool,
    /// An answer that would come later is a 504.
    pub request_timeout: Duration,
    /// A request that has not arrived whole by then is a 408.
    pub body_timeout: Duration,
    /// Bytes of a body; more is a 413.
    pub body_limit: usize,
    /// Bytes of one text; more is a 400.
    pub text_limit: usize,
    /// Texts in a request; more is a 400.
    pub max_inputs: usize,
    /// Bytes of a request's headers; more is a 431.
    pub header_limit: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the API from a browser; `*` is all of them. None: no page may.
    pub cors_origins: Vec<String>,
    /// Connections at a time; more wait until one ends.
    pub max_connections: usize,
    /// What callers are greeted with; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// What `dimensions` does under /api/v1 when the model cannot give them; under /v1 it is strict.
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
