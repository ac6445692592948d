//! The error table: every failure, its status and its message. One body serves both kinds of clients: `error` is for
//! OpenAI's, `detail` for those of the replaced service. No other module chooses the status of a failure.

mod access;
mod conversions;
mod request;
mod resources;

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(crate) use resources::{BacklogExceeded, OfferedModel};

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    param: Option<String>,
    message: String,
    detail: Option<Value>,
    retry_after: Option<Duration>,
    /// Whether `Retry-After` may exceed the usual maximum: a daily quota is not renewed within two minutes.
    uncapped_retry_after: bool,
}

/// The convention that a path follows: a body that does not fit the schema is a 400 for OpenAI's clients, a 422 for
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorStyle {
    /// Paths below /v1.
    OpenAi,
    /// All others.
    Native,
}

impl ErrorStyle {
    pub(crate) fn for_path(path: &str) -> Self {
        if path.starts_with("/v1/") { Self::OpenAi } else { Self::Native }
    }
}

/// The body of every failure.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
    /// The message, or data for programs: the inputs at fault, the progress of a download.
    detail: Value,
}

/// The failure, in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// What is wrong, where, and what to do.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error`, `upstream_error` or `server_error`.
    r#type: &'static str,
    /// The field at fault.
    param: Option<String>,
    /// A constant for programs.
    code: &'static str,
}

impl ApiError {
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "internal server error; the server's log has the details",
        )
    }

    /// The values of `error` and `detail`.
    fn describe(self) -> (ErrorDetail, Value) {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => "upstream_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let detail = self.detail.unwrap_or_else(|| Value::String(self.message.clone()));
        (ErrorDetail { message: self.message, r#type: kind, param: self.param, code: self.code }, detail)
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            param: None,
            message: message.into(),
            detail: None,
            retry_after: None,
            uncapped_retry_after: false,
        }
    }

    /// Whether background work may succeed when it is tried again later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    }

    /// How long to wait before the next attempt.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same failure inside a part of the body, such as `documents[3]`.
    pub(crate) fn nested_in(mut self, path: &str) -> Self {
        let param = self.param.take();
        self.param = Some(param.map_or_else(|| path.to_owned(), |param| format!("{path}.{param}")));
        self.message = format!("{path}: {}", self.message);
        self
    }

    /// The same failure in a line of a job. Nothing of the job is kept.
    pub(crate) fn with_job_line(mut self, line: u64) -> Self {
        self.message =
            format!("line {line}: {} (nothing of the job is kept: 0 documents are accepted)", self.message);
        self
    }

    /// The same failure, attributed to this field.
    pub(crate) fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self.message = format!("{param}: {}", self.message);
        self
    }

    /// The same failure in a line of an import. The documents before it stay stored.
    pub(crate) fn with_import_line(mut self, line: u64, stored: u64) -> Self {
        self.message = format!("line {line}: {} ({stored} documents before it are stored)", self.message);
        self
    }
}

/// For the logs of background tasks.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The response of a service that is not ready; the body names the parts.
pub(crate) fn not_ready(body: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// Maximum of `Retry-After`. A client that retries too early gets the header again.
const MAX_RETRY_AFTER_SECONDS: u64 = 120;

/// The error code of a response, in its extensions: for the access log.
#[derive(Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after, code) = (self.status, self.retry_after, ErrorCode(self.code));
        let max_seconds = if self.uncapped_retry_after { u64::MAX } else { MAX_RETRY_AFTER_SECONDS };
        let (error, detail) = self.describe();
        let mut response = (status, Json(ErrorBody { error, detail })).into_response();
        response.extensions_mut().insert(code);
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.min(max_seconds)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
