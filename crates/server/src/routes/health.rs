//! Alive, and ready. Liveness never waits on work and never looks further than this process; readiness says
//! which part is not ready.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, response::IntoResponse as _, response::Response};
use embeddery_core::ModelState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    App,
    error::not_ready,
    wire::{
        admin::{Breaker, Breakers, Cache, breakers, cache},
        models::State as ModelStateWire,
    },
};

/// The process answers.
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
    cache_stats: Cache,
    /// By name, `embeddings_<provider>`. An open one degrades only who asks that provider.
    #[schema(value_type = BTreeMap<String, Breaker>)]
    circuit_breakers: Breakers,
}

#[derive(Serialize, ToSchema)]
struct DefaultModel {
    id: String,
    #[serde(flatten)]
    state: ModelStateWire,
}

/// Whether requests will be answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// What is not ready, and why; `jobs` also when requests are answered and only jobs stand still.
    parts: BTreeMap<&'static str, String>,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, description = "Alive", body = Alive)))]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Whether the service is alive, with its parts. Always 200: `status` tells.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/health",
    tag = "operation",
    responses((status = 200, description = "Alive; degraded parts are listed", body = Health)),
)]
pub(super) async fn service(State(app): State<Arc<App>>) -> Json<Health> {
    let state = app.router.default_state();
    let failed = matches!(state, Some(ModelState::Failed { .. } | ModelState::Absent));
    Json(Health {
        status: if failed { "degraded" } else { "healthy" },
        service: "embeddery",
        version: env!("CARGO_PKG_VERSION"),
        timestamp: jiff::Timestamp::now().to_string(),
        default_model: DefaultModel { id: app.router.default_model(), state: state.into() },
        cache_stats: cache(&app),
        circuit_breakers: breakers(&app),
    })
}

/// Whether requests will be answered: 503 until the default model is in memory.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operation",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; `parts` says what and why", body = Readiness),
    ),
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let waiting = match app.router.default_state() {
        None | Some(ModelState::Loaded) => None,
        Some(ModelState::Absent) => Some("not on this machine".to_owned()),
        Some(ModelState::Downloading { percent }) => Some(format!("downloading, {percent} % is here")),
        Some(ModelState::OnDisk) => Some("loading".to_owned()),
        Some(ModelState::Failed { reason }) => Some(reason),
    };
    let mut parts: BTreeMap<&'static str, String> = BTreeMap::new();
    // Requests are answered all the same, so this is told and makes nobody unready.
    if let Some(reason) = jobs_stand_still(&app).await {
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

/// Why no job moves, if that is so.
async fn jobs_stand_still(app: &App) -> Option<String> {
    match tokio::time::timeout(PROBE, app.jobs.queue.workers()).await {
        Ok(Ok(workers)) if workers.is_empty() => {
            Some("no worker is alive: jobs wait; start `embeddery worker`".to_owned())
        }
        Ok(Ok(_)) => None,
        Ok(Err(_)) | Err(_) => Some("the queue is out of reach: jobs wait until it is back".to_owned()),
    }
}

/// The longest that a probe waits for the queue.
const PROBE: std::time::Duration = std::time::Duration::from_secs(1);
