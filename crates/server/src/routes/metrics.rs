//! What Prometheus reads: text format 0.0.4, or OpenMetrics for who asks for it.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

use crate::{
    App,
    auth::MetricsReader,
    error::{ApiError, ErrorBody},
};

const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "Text format 0.0.4, or OpenMetrics by Accept", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one, where `metrics_auth` is on", body = ErrorBody),
    ),
)]
pub(super) async fn metrics(
    _: MetricsReader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    exposition(&app.registry, &headers)
}

/// Metrics for Prometheus, at the replaced service's path.
#[utoipa::path(
    get,
    path = "/api/v1/metrics/text",
    tag = "operation",
    responses(
        (status = 200, description = "As /metrics", body = String, content_type = "text/plain"),
        (status = 401, description = "As /metrics", body = ErrorBody),
    ),
)]
pub(super) async fn metrics_text(
    _: MetricsReader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    exposition(&app.registry, &headers)
}

/// What a registry holds, in the form that is asked for.
pub(crate) fn exposition(registry: &Registry, headers: &HeaderMap) -> Result<Response, ApiError> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let mut body = String::new();
    let (encoded, content_type) = if accept.contains("application/openmetrics-text") {
        (text::encode(&mut body, registry), OPENMETRICS)
    } else {
        (prometheus_text::encode(&mut body, registry), PLAIN)
    };
    encoded.map_err(|_| ApiError::internal())?;
    Ok(([(CONTENT_TYPE, content_type)], body).into_response())
}
