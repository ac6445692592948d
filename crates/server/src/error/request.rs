//! Errors of requests that cannot be read: path, method, headers, body.

use std::time::Duration;

use axum::http::StatusCode;

use super::{ApiError, ErrorStyle};

impl ApiError {
    /// A field, header or parameter with an invalid value.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// A text that the model does not read whole.
    pub(crate) fn too_long(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, "input_too_long", message) }
    }

    /// A body that is not JSON.
    pub(crate) fn not_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    /// JSON that does not fit the schema.
    pub(crate) fn schema(style: ErrorStyle, param: Option<String>, message: impl Into<String>) -> Self {
        let status = match style {
            ErrorStyle::OpenAi => StatusCode::BAD_REQUEST,
            ErrorStyle::Native => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { param, ..Self::new(status, "invalid_request", message) }
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        let message = format!("no route at {path}; /docs lists all routes");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not support {method}; see the header Allow");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(crate) fn wrong_content_type(found: &str) -> Self {
        let message = format!(
            "the content type '{found}' is not supported; send JSON with `Content-Type: application/json`"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(crate) fn not_ndjson(found: &str) -> Self {
        let message = format!(
            "the content type '{found}' is not supported; send lines of JSON with `Content-Type: application/x-ndjson`"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes; send fewer inputs per request");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    pub(crate) fn head_too_large(limit: usize) -> Self {
        let message = format!("the path and headers are larger than {limit} bytes; shorten them");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message)
    }

    pub(crate) fn body_too_slow(limit: Duration) -> Self {
        let message = format!("the body did not arrive within {} seconds", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    }

    /// The body ended early. The client has most likely closed the connection.
    pub(crate) fn body_incomplete() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body ended before it was complete")
    }
}
