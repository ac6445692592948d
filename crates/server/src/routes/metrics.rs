//! Metrics for Prometheus: text format 0.0.4, or OpenMetrics by the header `Accept`.

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

/// Get the metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "Text format 0.0.4, or OpenMetrics by Accept", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one, where `metrics_auth` is on", body = ErrorBody),
    ),
)]
pub(super) async fn get_metrics(
    _: MetricsReader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    exposition(&app.registry, &headers)
}

/// Get the metrics for Prometheus, at the path of the replaced service.
#[utoipa::path(
    get,
    path = "/api/v1/metrics/text",
    tag = "operation",
    responses(
        (status = 200, description = "As /metrics", body = String, content_type = "text/plain"),
        (status = 401, description = "As /metrics", body = ErrorBody),
    ),
)]
pub(super) async fn get_metrics_text(
    _: MetricsReader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    exposition(&app.registry, &headers)
}

/// The metrics of a registry, in the format that the headers request.
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
