//! Liveness and readiness. Liveness waits for nothing and depends on this process only; readiness names the part that
//! is not ready.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, response::IntoResponse as _, response::Response};
use embeddery_core::ModelState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    App,
    error::not_ready,
    wire::{
        admin::{CacheStatsView, CircuitBreakerView, CircuitBreakers, breakers_by_provider, cache},
        models::ModelStateView,
    },
};

/// The process is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// `ok`
    status: &'static str,
}

/// The service and its parts.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `healthy`, or `degraded` when a part does not work.
    status: &'static str,
    /// `embeddery`
    service: &'static str,
    version: &'static str,
    /// RFC 3339, UTC.
    timestamp: String,
    default_model: DefaultModel,
    cache_stats: CacheStatsView,
    /// By name: `embeddings_<provider>`, with the worst state of the provider's servers. An open one affects only requests
    /// to that server.
    #[schema(value_type = BTreeMap<String, CircuitBreakerView>)]
    circuit_breakers: CircuitBreakers,
}

#[derive(Serialize, ToSchema)]
struct DefaultModel {
    id: String,
    #[serde(flatten)]
    state: ModelStateView,
}

/// Whether the service can serve requests.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// What is not ready, and why; `jobs` also when requests are served and only jobs wait.
    parts: BTreeMap<&'static str, String>,
}

/// Check that the process is alive.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, description = "Alive", body = Alive)))]
pub(super) async fn get_liveness() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Get the health of the service with its parts. The status is always 200; see the field `status`.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/health",
    tag = "operation",
    responses((status = 200, description = "The health; degraded parts are listed", body = Health)),
)]
pub(super) async fn get_service_health(State(app): State<Arc<App>>) -> Json<Health> {
    let state = app.router.default_state();
    let failed = matches!(state, Some(ModelState::Failed { .. } | ModelState::Absent));
    Json(Health {
        status: if failed { "degraded" } else { "healthy" },
        service: "embeddery",
        version: env!("CARGO_PKG_VERSION"),
        timestamp: jiff::Timestamp::now().to_string(),
        default_model: DefaultModel { id: app.router.default_model(), state: state.into() },
        cache_stats: cache(&app),
        circuit_breakers: breakers_by_provider(&app),
    })
}

/// Check that requests are served: 503 until the default model has been loaded.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operation",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; `parts` says what and why", body = Readiness),
    ),
)]
pub(super) async fn get_readiness(State(app): State<Arc<App>>) -> Response {
    let waiting = match app.router.default_state() {
        None | Some(ModelState::Loaded | ModelState::Unloaded) => None,
        Some(ModelState::Absent) => Some("not on this machine".to_owned()),
        Some(ModelState::Downloading { percent }) => Some(format!("downloading, {percent} % is here")),
        Some(ModelState::OnDisk) => Some("loading".to_owned()),
        Some(ModelState::Failed { reason }) => Some(reason),
    };
    let mut parts: BTreeMap<&'static str, String> = BTreeMap::new();
    // Requests are served all the same, so this is reported without making the service unready.
    if let Some(reason) = job_problem(&app).await {
        parts.insert("jobs", reason);
    }
    match waiting {
        None => Json(Readiness { status: "ready", parts }).into_response(),
        Some(reason) => {
            parts.insert("default_model", reason);
            not_ready(Json(Readiness { status: "not_ready", parts }))
        }
    }
}

/// Why jobs make no progress, or could be lost, if that is so.
async fn job_problem(app: &App) -> Option<String> {
    match tokio::time::timeout(PROBE_TIMEOUT, app.jobs.queue.workers()).await {
        Ok(Ok(workers)) if workers.is_empty() => {
            Some("no worker is alive: jobs wait; start `embeddery worker`".to_owned())
        }
        Ok(Ok(_)) => match tokio::time::timeout(PROBE_TIMEOUT, app.jobs.queue.health()).await {
            Ok(Ok(dangers)) if !dangers.is_empty() => Some(dangers.join("; ")),
            _ => None,
        },
        Ok(Err(_)) | Err(_) => Some("the queue is out of reach: jobs wait until it is back".to_owned()),
    }
}

/// How long a probe waits for the queue.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
