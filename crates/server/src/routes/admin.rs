//! What an administrator looks at and changes: circuit breakers, the cache, counters. In single_user mode
//! that is whoever has the key.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use embeddery_core::ProviderKind;

use crate::{
    App, Reloaded,
    auth::{Admin, Caller},
    error::{ApiError, ErrorBody},
    wire::admin::{
        Breaker, Cleared, Done, EmbeddingMetrics, ProvidersConfig, breakers, metrics as read_metrics,
        providers,
    },
};

/// How the circuit breaker of each provider stands.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/circuit-breakers",
    tag = "operation",
    responses(
        (status = 200, description = "By name, `embeddings_<provider>`", body = std::collections::BTreeMap<String, Breaker>),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_breakers(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Json<std::collections::BTreeMap<String, Breaker>> {
    Json(breakers(&app))
}

/// Close a circuit breaker, whatever it has seen.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/circuit-breakers/{provider}/reset",
    tag = "operation",
    params(("provider" = String, Path, description = "The provider, or the breaker's name")),
    responses(
        (status = 200, description = "It is closed", body = Done),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 404, description = "No such provider", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reset_breaker(
    _: Admin,
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
) -> Result<Json<Done>, ApiError> {
    let kind: ProviderKind = provider
        .strip_prefix("embeddings_")
        .unwrap_or(&provider)
        .parse()
        .map_err(|_| ApiError::unknown_breaker(&provider))?;
    app.controls.breakers.for_provider(kind).reset();
    tracing::info!(provider = %kind, "circuit breaker reset by an administrator");
    Ok(Json(Done { message: format!("Circuit breaker for '{kind}' reset successfully") }))
}

/// Forget every cached vector.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/cache",
    tag = "operation",
    responses(
        (status = 200, description = "It is empty", body = Cleared),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "Memory is empty, but the second level is away", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn clear_cache(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Cleared>, ApiError> {
    let removed = match &app.controls.cache {
        Some(cache) => cache.clear().await.map_err(|error| ApiError::cache_away(&error.to_string()))?,
        None => 0,
    };
    Ok(Json(Cleared { message: "Cache cleared successfully", entries_removed: removed }))
}

/// Read the configuration file anew.
///
/// It holds whole or not at all. Keys that only a restart can change are named; the rest is in force when this answers.
/// SIGHUP does the same.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/config/reload",
    tag = "operation",
    responses(
        (status = 200, description = "It holds", body = Reloaded),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 409, description = "It is not usable; nothing has changed", body = ErrorBody),
        (status = 503, description = "The process is ending", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reload(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Reloaded>, ApiError> {
    let reloads = app.reloads.as_ref().ok_or_else(ApiError::ending)?;
    let outcome = reloads.reload().await.ok_or_else(ApiError::ending)?;
    outcome.map(Json).map_err(|problems| ApiError::unusable_configuration(&problems))
}

/// What embedding has done since the start, as JSON.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The numbers of /metrics that are about embedding", body = EmbeddingMetrics),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn embedding_metrics(_: Admin, State(app): State<Arc<App>>) -> Json<EmbeddingMetrics> {
    Json(read_metrics(&app, &app.registry))
}

/// Who serves which models.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/providers-config",
    tag = "models",
    responses(
        (status = 200, description = "The providers here, with their known models", body = ProvidersConfig),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn providers_config(_: Caller, State(app): State<Arc<App>>) -> Json<ProvidersConfig> {
    Json(providers(&app.router))
}
