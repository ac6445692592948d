//! What a process without an API shows of itself: its metrics and its health, to whoever can reach the port.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, Router, extract::State, http::HeaderMap, response::Response, routing::get};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{error::ApiError, routes::metrics::exposition};

/// What is shown.
pub struct MetricsServer {
    /// /metrics.
    pub registry: Registry,
    /// /health: each part with how it is, or the name of what does not work with the reason.
    pub health: Box<dyn Fn() -> Result<BTreeMap<String, String>, String> + Send + Sync>,
}

/// Shows it until `shutdown`.
pub async fn monitor(listener: TcpListener, monitored: MetricsServer, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(Arc::new(monitored));
    // Only those who watch reach this port: none of the limits that strangers are met with.
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(
    State(monitored): State<Arc<MetricsServer>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    exposition(&monitored.registry, &headers)
}

/// Always 200: who answers is alive, and a queue that is away is no reason to restart anybody.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    parts: BTreeMap<String, String>,
}

async fn health(State(monitored): State<Arc<MetricsServer>>) -> Json<Health> {
    let (status, reason, parts) = match (monitored.health)() {
        Ok(parts) => ("healthy", None, parts),
        Err(reason) => ("degraded", Some(reason), BTreeMap::new()),
    };
    Json(Health { status, version: env!("CARGO_PKG_VERSION"), reason, parts })
}
