//! The one table: every failure, its status, its words. One body serves both worlds: `error` for clients of
//! OpenAI, `detail` for clients of the replaced service. No other file chooses the status of a failure.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use embeddery_accounts::{
    ledger::{Counter, QuotaExceeded},
    limit::{Measure, Rates},
};
use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, Retry};
use embeddery_pipeline::{JobError, JobId, QueueError};
use embeddery_store::{FilterError, ModelBinding, StoreError, StoreErrorKind};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    param: Option<String>,
    message: String,
    detail: Option<Value>,
    retry_after: Option<Duration>,
    /// Whether a long wait is told as it is: an exhausted day does not end after two minutes.
    patient: bool,
}

/// Which world a path belongs to: a body that does not fit is a 400 for OpenAI's clients, a 422 for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Paths below /v1.
    OpenAi,
    /// All others.
    Native,
}

impl Dialect {
    pub(crate) fn of(path: &str) -> Self {
        if path.starts_with("/v1/") { Self::OpenAi } else { Self::Native }
    }
}

/// The body of every failure.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
    /// The message, or what a program may want to know: a list of the inputs at fault, how far a model is.
    detail: Value,
}

/// The failure, in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// What was wrong, where, and what to do.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error`, `upstream_error` or `server_error`.
    r#type: &'static str,
    /// The field at fault.
    param: Option<String>,
    /// For programs.
    code: &'static str,
}

impl ApiError {
    /// A value that cannot be used.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// A body that is no JSON.
    pub(crate) fn not_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    /// JSON that does not fit the schema.
    pub(crate) fn schema(dialect: Dialect, param: Option<String>, message: impl Into<String>) -> Self {
        let status = match dialect {
            Dialect::OpenAi => StatusCode::BAD_REQUEST,
            Dialect::Native => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { param, ..Self::new(status, "invalid_request", message) }
    }

    pub(crate) fn missing_key() -> Self {
        let message =
            "no API key was sent; send it as `Authorization: Bearer <key>` or as `X-API-KEY: <key>`";
        Self::new(StatusCode::UNAUTHORIZED, "missing_api_key", message)
    }

    pub(crate) fn wrong_key() -> Self {
        let message = "the API key is wrong; it is the server's SINGLE_USER_API_KEY, or the file `api-key` in its state directory";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub(crate) fn unknown_breaker(name: &str) -> Self {
        let message = format!(
            "there is no circuit breaker '{name}'; GET /api/v1/embeddings/circuit-breakers lists them"
        );
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// A configuration that was read anew cannot hold.
    pub(crate) fn unusable_configuration(problems: &[String]) -> Self {
        let message = format!(
            "the configuration stays as it was, because the new one is not usable: {}",
            problems.join("; ")
        );
        let detail = Some(json!({"problems": problems}));
        Self { detail, ..Self::new(StatusCode::CONFLICT, "unusable_configuration", message) }
    }

    /// Nobody is there to read the configuration.
    pub(crate) fn ending() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "this process is ending; ask the one that follows it",
        )
    }

    /// A part of the cache could not be reached.
    pub(crate) fn cache_away(reason: &str) -> Self {
        let message = format!("memory is cleared, but not the cache's second level: {reason}; try again");
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    pub(crate) fn missing_token() -> Self {
        let message = "no token was sent; send it as `Authorization: Bearer <token>`";
        Self::new(StatusCode::UNAUTHORIZED, "missing_token", message)
    }

    /// One answer for every bad token: what is wrong with it is nobody's business but the audit log's.
    pub(crate) fn bad_token() -> Self {
        let message = "the token is not accepted; get a new one where your tokens come from";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
    }

    pub(crate) fn not_admin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "admin_required", "this is for admins; ask for the admin's role")
    }

    pub(crate) fn too_many_failures(wait: Duration) -> Self {
        let message = "too many wrong keys or tokens came from this address; come back after Retry-After";
        Self {
            retry_after: Some(wait),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message)
        }
    }

    pub(crate) fn rate_limited(measure: Measure, rates: &Rates, wait: Duration) -> Self {
        let message = match (measure, rates.requests, rates.tokens) {
            (Measure::Tokens, _, Some(rate)) => {
                format!("too many tokens: {} a minute may come", rate.burst)
            }
            (_, Some(rate), _) => {
                format!("too many requests: {} a second may come, {} at once", rate.a_second(), rate.burst)
            }
            _ => "too many requests".to_owned(),
        };
        Self {
            retry_after: Some(wait),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                format!("{message}; come back after Retry-After"),
            )
        }
    }

    /// More at once than a minute allows: waiting does not help, so it is no 429.
    pub(crate) fn beyond_rate(amount: u32, limit: u32) -> Self {
        let message = format!(
            "input: has about {amount} tokens, and {limit} a minute may come; send fewer inputs in a request"
        );
        Self { param: Some("input".into()), ..Self::new(StatusCode::BAD_REQUEST, "too_many_tokens", message) }
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        let message = format!("there is nothing at {path}; see /docs for what there is");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        let message = format!("model '{name}' is not known here; GET /v1/models lists what is");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// Where many users share a machine, what is not on it is an admin's to bring.
    pub(crate) fn not_fetched_for_users(name: &str) -> Self {
        let message = format!("model '{name}' is not on this machine, and only an admin may bring it here");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}; the header Allow says what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(crate) fn wrong_content_type(found: &str) -> Self {
        let message =
            format!("the body is announced as '{found}'; send JSON with `Content-Type: application/json`");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(crate) fn no_lines(found: &str) -> Self {
        let message = format!(
            "the body is announced as '{found}'; send lines of JSON with `Content-Type: application/x-ndjson`"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes; send fewer inputs in a request");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    pub(crate) fn head_too_large(limit: usize) -> Self {
        let message =
            format!("the request's path and headers are larger than {limit} bytes; send less in them");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message)
    }

    pub(crate) fn body_too_slow(limit: Duration) -> Self {
        let message = format!("the body did not arrive within {} seconds", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    }

    /// The body ended early; most likely nobody is there to read this.
    pub(crate) fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body ended before it was complete")
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "this is a defect of the server; its log knows more",
        )
    }

    /// The failure in words, and what a program may want to know besides.
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
            patient: false,
        }
    }

    /// Whether the same may succeed later, for work that nobody waits for.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    }

    /// When to come back.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same failure in a part of the body: `documents[3]`.
    pub(crate) fn within(mut self, place: &str) -> Self {
        let param = self.param.take();
        self.param = Some(param.map_or_else(|| place.to_owned(), |param| format!("{place}.{param}")));
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// A move to another model runs; one at a time.
    pub(crate) fn already_moving(collection: &str) -> Self {
        let message = format!(
            "collection '{collection}' is being moved to another model; GET …/{collection}/stats shows how far it is"
        );
        Self::new(StatusCode::CONFLICT, "already_moving", message)
    }

    /// A user has no job of this id: it may be another's, which is the same to them.
    pub(crate) fn unknown_job(id: &str) -> Self {
        let message = format!("there is no job '{id}'; GET /api/v1/embeddings/jobs lists yours");
        Self { param: Some("job_id".into()), ..Self::new(StatusCode::NOT_FOUND, "job_not_found", message) }
    }

    /// A dead letter that is gone, or never was.
    pub(crate) fn unknown_letter(id: &str) -> Self {
        let message = format!("DLQ entry not found: '{id}'; GET /api/v1/embeddings/dlq lists them");
        Self {
            param: Some("entry_id".into()),
            ..Self::new(StatusCode::NOT_FOUND, "entry_not_found", message)
        }
    }

    /// A dead letter that cannot run again, and why.
    pub(crate) fn stays_dead(why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "entry_not_usable", why)
    }

    /// A job that cannot be changed any more, and why.
    pub(crate) fn job_ended(id: &JobId, why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "job_ended", format!("job {id} cannot be changed: {why}"))
    }

    /// An idempotency key was used before, for something else.
    pub(crate) fn another_request(job: &JobId) -> Self {
        let message =
            format!("this Idempotency-Key was used for another request, which is job {job}; take a new key");
        Self {
            param: Some("Idempotency-Key".into()),
            ..Self::new(StatusCode::CONFLICT, "idempotency_conflict", message)
        }
    }

    /// A collection has the vectors of one model, a job asks for another's.
    pub(crate) fn other_model(
        collection: &str,
        bound: &ModelBinding,
        (provider, model, dimensions): (&str, &str, Option<usize>),
    ) -> Self {
        let asked = match dimensions {
            Some(length) => format!("{provider}:{model} with {length} dimensions"),
            None => format!("{provider}:{model}"),
        };
        let message = format!(
            "collection '{collection}' is bound to {}:{} with {} dimensions (space {}), the job asks for {asked}; leave model out, or take another collection",
            bound.provider, bound.model, bound.dim, bound.space
        );
        Self {
            param: Some("model".into()),
            detail: Some(json!({
                "message": message,
                "collection_space": bound.space.as_str(),
                "collection_model": bound.model,
                "collection_provider": bound.provider,
                "offered_model": model,
                "offered_provider": provider,
            })),
            ..Self::new(StatusCode::CONFLICT, "space_mismatch", message)
        }
    }

    /// Too much waits already.
    pub(crate) fn backlog(backlog: &BacklogExceeded) -> Self {
        let whose = if backlog.own { "you have too much in the queue" } else { "the queue is full" };
        // Who waits for long is asked to wait longer: the queue moves slowly.
        let wait = (backlog.oldest / 10).clamp(Duration::from_secs(5), Duration::from_secs(120));
        Self {
            retry_after: Some(wait),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                format!("{whose}: {}; come back after Retry-After", backlog.reason),
            )
        }
    }

    /// A job whose texts alone are more than may wait.
    pub(crate) fn job_too_large(limit: u64) -> Self {
        let message = format!(
            "the job's texts are more than the {} MiB that may wait; send them as several jobs, one after another",
            limit >> 20
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "job_too_large", message)
    }

    /// A line of a job that cannot be taken.
    pub(crate) fn in_job_line(mut self, line: u64) -> Self {
        self.message =
            format!("line {line}: {} (nothing of the job is kept: 0 documents are accepted)", self.message);
        self
    }

    /// The same failure, of this field.
    pub(crate) fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self.message = format!("{param}: {}", self.message);
        self
    }

    /// A line of an import that cannot be taken; what came before it is stored.
    pub(crate) fn in_line(mut self, line: u64, stored: u64) -> Self {
        self.message = format!("line {line}: {} ({stored} documents before it are stored)", self.message);
        self
    }
}

impl From<EmbedError> for ErrorDetail {
    /// One input's failure, inside an answer.
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
        // A message begins with the field when it is about one: "dimensions: …", "input[3] …".
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
            ..Self::new(status, code, placed(error))
        }
    }
}

/// Whether the status itself promises a better moment, so that callers look for `Retry-After`.
fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

impl From<QuotaExceeded> for ApiError {
    fn from(exhausted: QuotaExceeded) -> Self {
        let (wait, message) = match exhausted {
            QuotaExceeded::Tokens { limit, used, wait } => (
                Some(wait),
                format!("{used} of today's {limit} tokens are used; the next day of UTC brings new ones"),
            ),
            QuotaExceeded::Counter { counter: Counter::StoredVectors, limit, used } => {
                (None, format!("{used} of {limit} vectors are stored; delete what is not needed"))
            }
            QuotaExceeded::Counter { counter: Counter::Jobs, limit, used } => {
                (None, format!("{used} of {limit} jobs are not finished; wait for one to end, or cancel it"))
            }
        };
        Self {
            retry_after: wait,
            patient: true,
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
                tracing::error!(error = %error, "the store failed");
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
                tracing::error!(%error, "the store of jobs failed");
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
                tracing::error!(%error, "the queue failed");
                return Self::internal();
            }
        };
        tracing::warn!(%error, "the queue does not take work");
        let message = format!("jobs wait for their queue, embedding and search go on: {error}");
        Self {
            retry_after: wait.map(Duration::from_secs),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        }
    }
}

/// Why no more jobs are taken at the moment.
pub(crate) struct BacklogExceeded {
    /// The caller's own work, not everybody's.
    pub(crate) own: bool,
    pub(crate) reason: String,
    /// How long the oldest document waits.
    pub(crate) oldest: Duration,
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::invalid("filter", error.0)
    }
}

/// For logs of background tasks.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A part of the service is not ready; the body says which.
pub(crate) fn not_ready(body: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// The message, beginning with the inputs at fault: only here are their places those of the request.
fn placed(error: EmbedError) -> String {
    const NAMED: usize = 5;
    if error.inputs.is_empty() {
        return error.message;
    }
    let place = |fault: &InputError| match fault.tokens {
        Some(tokens) => format!("input[{}] ({tokens} tokens)", fault.index),
        None => format!("input[{}]", fault.index),
    };
    let mut places: Vec<String> = error.inputs.iter().take(NAMED).map(place).collect();
    if error.inputs.len() > NAMED {
        places.push(format!("{} more", error.inputs.len() - NAMED));
    }
    format!("{}: {}", places.join(", "), error.message)
}

/// What a program may want to know besides the message.
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

/// The longest wait that we ask for; who comes back earlier than needed is told again.
const LONGEST_WAIT_SECONDS: u64 = 120;

/// The code of the failure that was answered, among the answer's extensions: for the log.
#[derive(Clone, Copy)]
pub(crate) struct Failed(pub(crate) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after, patient) = (self.status, self.retry_after, self.patient);
        let failed = Failed(self.code);
        let (error, detail) = self.describe();
        let mut response = (status, Json(ErrorBody { error, detail })).into_response();
        response.extensions_mut().insert(failed);
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            let longest = if patient { u64::MAX } else { LONGEST_WAIT_SECONDS };
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.min(longest)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
