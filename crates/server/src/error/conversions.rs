//! Errors of other crates as API errors.

use std::time::Duration;

use axum::http::StatusCode;
use embeddery_accounts::ledger::{Counter, QuotaExceeded};
use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, Retry};
use embeddery_pipeline::{JobError, QueueError};
use embeddery_store::{FieldError, FilterError, StoreError, StoreErrorKind};
use serde_json::{Value, json};

use super::{ApiError, ErrorDetail};

impl From<EmbedError> for ErrorDetail {
    /// The failure of one input, inside a response.
    fn from(error: EmbedError) -> Self {
        ApiError::from(error).describe().0
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let (status, code, param) = match error.kind {
            ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_value", None),
            ErrorKind::InputTooLong => (StatusCode::BAD_REQUEST, "input_too_long", Some("input")),
            ErrorKind::ModelNotFound => (StatusCode::NOT_FOUND, "model_not_found", Some("model")),
            ErrorKind::ModelLoading { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "model_loading", Some("model"))
            }
            ErrorKind::ModelUnusable => (StatusCode::SERVICE_UNAVAILABLE, "model_unusable", Some("model")),
            ErrorKind::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "overloaded", None),
            ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout", None),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", Some("model")),
            ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "upstream_rate_limited", None),
            ErrorKind::BatchTooLarge => (StatusCode::BAD_REQUEST, "input_too_long", Some("input")),
            ErrorKind::UpstreamAuth => (StatusCode::BAD_GATEWAY, "upstream_unauthorized", None),
            ErrorKind::BreakerOpen => (StatusCode::SERVICE_UNAVAILABLE, "breaker_open", None),
            ErrorKind::InvalidUpstreamResponse => (StatusCode::BAD_GATEWAY, "bad_upstream_answer", None),
            _ => {
                tracing::error!(error = %error, "internal failure");
                return Self::internal();
            }
        };
        if error.fault != Fault::Caller {
            tracing::warn!(error = %error, code, "request failed");
        }
        // A message about a field begins with its name: "dimensions: …", "input[3] …".
        let field =
            ["dimensions", "input", "model"].into_iter().find(|field| error.message.starts_with(field));
        Self {
            param: match &error.inputs[..] {
                [one] => Some(format!("input[{}]", one.index)).filter(|_| param.is_none()),
                _ => None,
            }
            .or_else(|| param.or(field).map(str::to_owned)),
            detail: detail(&error),
            retry_after: match error.retry {
                Retry::After(wait) => Some(wait),
                Retry::Backoff if is_busy(status) => Some(Duration::from_secs(5)),
                Retry::Backoff | Retry::Never => None,
            },
            ..Self::new(status, code, message_with_inputs(error, |index| format!("input[{index}]")))
        }
    }
}

/// Whether a response with this status should have `Retry-After`.
fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

impl From<QuotaExceeded> for ApiError {
    fn from(exhausted: QuotaExceeded) -> Self {
        let (wait, message) = match exhausted {
            QuotaExceeded::Tokens { limit, used, wait } => (
                Some(wait),
                format!("{used} of {limit} tokens per day are used; the quota is renewed at midnight UTC"),
            ),
            QuotaExceeded::Counter { counter: Counter::StoredVectors, limit, used } => (
                None,
                format!("{used} of {limit} vectors are stored; delete documents that are no longer needed"),
            ),
            QuotaExceeded::Counter { counter: Counter::Jobs, limit, used } => (
                None,
                format!(
                    "{used} of {limit} concurrent jobs are unfinished; wait until one ends, or cancel one"
                ),
            ),
        };
        Self {
            retry_after: wait,
            uncapped_retry_after: true,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", message)
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let plain = |status, code| Self::new(status, code, error.message.clone());
        match &error.kind {
            StoreErrorKind::Invalid => plain(StatusCode::BAD_REQUEST, "invalid_value"),
            StoreErrorKind::NotFound => plain(StatusCode::NOT_FOUND, "not_found"),
            StoreErrorKind::Exists => plain(StatusCode::CONFLICT, "already_exists"),
            StoreErrorKind::SpaceMismatch { bound, offered } => Self {
                detail: Some(json!({
                    "message": error.message,
                    "collection_space": bound.as_str(),
                    "offered_space": offered.as_str(),
                })),
                ..plain(StatusCode::CONFLICT, "space_mismatch")
            },
            StoreErrorKind::Migration => plain(StatusCode::CONFLICT, "migration_conflict"),
            StoreErrorKind::VectorMissing => plain(StatusCode::CONFLICT, "changed_meanwhile"),
            StoreErrorKind::Full => plain(StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            StoreErrorKind::Unavailable { after } => Self {
                retry_after: Some(*after),
                ..plain(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            },
            StoreErrorKind::TooNew => plain(StatusCode::SERVICE_UNAVAILABLE, "store_too_new"),
            StoreErrorKind::Unsupported => plain(StatusCode::CONFLICT, "unsupported"),
            StoreErrorKind::Internal => {
                tracing::error!(error = %error, "an operation of the vector store failed");
                Self::internal()
            }
        }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let (status, code, wait) = match &error {
            JobError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "jobs_unavailable", Some(5)),
            JobError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full", None),
            JobError::TooNew(_) => (StatusCode::SERVICE_UNAVAILABLE, "jobs_too_new", None),
            JobError::Internal(_) => {
                tracing::error!(%error, "an operation of the job store failed");
                return Self::internal();
            }
        };
        Self { retry_after: wait.map(Duration::from_secs), ..Self::new(status, code, error.to_string()) }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        let (code, wait) = match &error {
            QueueError::Unavailable(_) => ("queue_unavailable", Some(10)),
            QueueError::Full(_) => ("queue_full", Some(30)),
            QueueError::TooNew(_) => ("queue_too_new", None),
            QueueError::Internal(_) => {
                tracing::error!(%error, "an operation of the queue failed");
                return Self::internal();
            }
        };
        tracing::warn!(%error, "the queue is unavailable");
        let message = format!("the job queue is unavailable; embedding and search still work: {error}");
        Self {
            retry_after: wait.map(Duration::from_secs),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        }
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::invalid(error.field, error.message)
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::invalid("filter", error.0)
    }
}

/// The message, prefixed with the inputs at fault. Only at this point are their indexes those of the whole request.
fn message_with_inputs(error: EmbedError, name: impl Fn(usize) -> String) -> String {
    const MAX_NAMED: usize = 5;
    if error.inputs.is_empty() {
        return error.message;
    }
    let name = |fault: &InputError| match fault.tokens {
        Some(tokens) => format!("{} ({tokens} tokens)", name(fault.index)),
        None => name(fault.index),
    };
    let mut names: Vec<String> = error.inputs.iter().take(MAX_NAMED).map(name).collect();
    if error.inputs.len() > MAX_NAMED {
        names.push(format!("{} more", error.inputs.len() - MAX_NAMED));
    }
    format!("{}: {}", names.join(", "), error.message)
}

impl ApiError {
    /// The failure of chunks of documents. The request does not have the chunks as inputs, so `name` names a chunk, and
    /// `param` is the field of the documents.
    pub(crate) fn of_chunks(
        error: EmbedError,
        param: Option<String>,
        name: impl Fn(usize) -> String,
    ) -> Self {
        if error.inputs.is_empty() {
            return error.into();
        }
        let message = message_with_inputs(error.clone(), name);
        let error = Self::from(error.with_inputs(Vec::new()));
        Self { message, param, detail: None, ..error }
    }
}

/// The data for programs in `detail`.
fn detail(error: &EmbedError) -> Option<Value> {
    match error.kind {
        ErrorKind::ModelLoading { percent } => Some(json!({"message": error.message, "percent": percent})),
        _ if error.inputs.is_empty() => None,
        _ => Some(
            error
                .inputs
                .iter()
                .map(|InputError { index, tokens }| match tokens {
                    Some(tokens) => json!({"index": index, "tokens": tokens}),
                    None => json!({"index": index}),
                })
                .collect(),
        ),
    }
}
