//! `/metrics` and `/health` of a process without the API, without authentication.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, Router, extract::State, http::HeaderMap, response::Response, routing::get};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{error::ApiError, routes::metrics::exposition};

/// What `/metrics` and `/health` report.
pub struct MetricsServer {
    /// The families of `/metrics`.
    pub registry: Registry,
    /// The state of each part, by name; or the reason why the process is degraded.
    pub health: Box<dyn Fn() -> Result<BTreeMap<String, String>, String> + Send + Sync>,
}

/// Serves `/metrics` and `/health` until `shutdown` is cancelled.
pub async fn serve_metrics(listener: TcpListener, server: MetricsServer, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(Arc::new(server));
    // This port is for the operator's network only, so it has none of the limits of the API.
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the metrics server stopped");
    }
}

async fn metrics(State(server): State<Arc<MetricsServer>>, headers: HeaderMap) -> Result<Response, ApiError> {
    exposition(&server.registry, &headers)
}

/// The status is always 200: the process is alive, and a restart does not bring back an unavailable queue.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    parts: BTreeMap<String, String>,
}

async fn health(State(server): State<Arc<MetricsServer>>) -> Json<Health> {
    let (status, reason, parts) = match (server.health)() {
        Ok(parts) => ("healthy", None, parts),
        Err(reason) => ("degraded", Some(reason), BTreeMap::new()),
    };
    Json(Health { status, version: env!("CARGO_PKG_VERSION"), reason, parts })
}
