//! What an administrator sees and changes: circuit breakers, the cache, the configuration, counters. In single_user mode
//! every caller with the key is one.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use embeddery_gateway::{BreakerReport, UnknownBreaker};

use super::common_errors::AdminErrors;
use crate::{
    App, Reloaded,
    auth::{Admin, Caller},
    error::{ApiError, ErrorBody},
    wire::admin::{
        CircuitBreakerQuery, CircuitBreakerView, ClearCacheResponse, EmbeddingMetrics, MessageResponse,
        ProvidersConfig, breakers, metrics as read_metrics, providers,
    },
};

/// List the circuit breakers of the providers' servers.
///
/// Each server of a provider has one. The servers of `local_api` are listed by the configured ids of their models.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/circuit-breakers",
    tag = "operation",
    responses(
        (status = 200, description = "By name: `embeddings_<provider>`, for local_api `embeddings_<id>`, and `…@<address>` for each further server", body = std::collections::BTreeMap<String, CircuitBreakerView>),
        AdminErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_circuit_breakers(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Json<std::collections::BTreeMap<String, CircuitBreakerView>> {
    Json(breakers(&app))
}

/// Close circuit breakers and forget their failures.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/circuit-breakers/{provider}/reset",
    tag = "operation",
    params(
        ("provider" = String, Path, description = "The provider, for all its breakers; the configured id of a local_api model; or a breaker's name"),
        CircuitBreakerQuery,
    ),
    responses(
        (status = 200, description = "They are closed", body = MessageResponse),
        AdminErrors,
        (status = 404, description = "No such provider, or it has no server at this address", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reset_circuit_breaker(
    _: Admin,
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    query: Result<Query<CircuitBreakerQuery>, QueryRejection>,
) -> Result<Json<MessageResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let address = query.address.as_deref();
    let reset = app.controls.breakers.reset(&provider, address).map_err(|unknown| match unknown {
        UnknownBreaker::Name => ApiError::unknown_breaker(&provider),
        UnknownBreaker::Address(known) => {
            ApiError::unknown_breaker_address(&provider, address.unwrap_or_default(), &known)
        }
    })?;
    for BreakerReport { provider, address, .. } in &reset {
        tracing::info!(%provider, address = address.as_deref(), "circuit breaker reset by an administrator");
    }
    let name = provider.strip_prefix("embeddings_").unwrap_or(&provider);
    let at = address.map(|address| format!(" at '{address}'")).unwrap_or_default();
    Ok(Json(MessageResponse { message: format!("Circuit breaker for '{name}'{at} reset successfully") }))
}

/// Clear the cache of vectors.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/cache",
    tag = "operation",
    responses(
        (status = 200, description = "It is cleared", body = ClearCacheResponse),
        AdminErrors,
        (status = 503, description = "Memory is cleared, but the persistent cache is unavailable", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn clear_cache(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Result<Json<ClearCacheResponse>, ApiError> {
    let removed = match &app.controls.cache {
        Some(cache) => {
            cache.clear().await.map_err(|error| ApiError::cache_unavailable(&error.to_string()))?
        }
        None => 0,
    };
    Ok(Json(ClearCacheResponse { message: "Cache cleared successfully", entries_removed: removed }))
}

/// Reload the configuration file.
///
/// It is applied as a whole or not at all. Keys that only a restart can change are named; the rest is applied when this
/// responds. SIGHUP does the same.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/config/reload",
    tag = "operation",
    responses(
        (status = 200, description = "It is applied", body = Reloaded),
        AdminErrors,
        (status = 409, description = "The configuration is invalid; nothing has changed", body = ErrorBody),
        (status = 503, description = "The process is shutting down", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reload_config(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Reloaded>, ApiError> {
    let reloads = app.reloads.as_ref().ok_or_else(ApiError::shutting_down)?;
    let outcome = reloads.reload().await.ok_or_else(ApiError::shutting_down)?;
    outcome.map(Json).map_err(|problems| ApiError::unusable_configuration(&problems))
}

/// Get the embedding metrics since the start of the process as JSON.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The metrics of /metrics about embedding", body = EmbeddingMetrics),
        AdminErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_embedding_metrics(_: Admin, State(app): State<Arc<App>>) -> Json<EmbeddingMetrics> {
    Json(read_metrics(&app, &app.registry))
}

/// List the providers with their models.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/providers-config",
    tag = "models",
    responses(
        (status = 200, description = "The providers with their known models", body = ProvidersConfig),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_providers_config(_: Caller, State(app): State<Arc<App>>) -> Json<ProvidersConfig> {
    Json(providers(&app.router))
}
