//! Errors of authentication, permissions and rate limits.

use std::time::Duration;

use axum::http::StatusCode;
use embeddery_accounts::limit::{RateLimitKind, Rates};

use super::ApiError;

impl ApiError {
    pub(crate) fn missing_key() -> Self {
        let message =
            "no API key was sent; send it as `Authorization: Bearer <key>` or as `X-API-KEY: <key>`";
        Self::new(StatusCode::UNAUTHORIZED, "missing_api_key", message)
    }

    pub(crate) fn wrong_key() -> Self {
        let message = "the API key is wrong; it is the server's SINGLE_USER_API_KEY, or the file `api-key` in its state directory";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub(crate) fn missing_token() -> Self {
        let message = "no token was sent; send it as `Authorization: Bearer <token>`";
        Self::new(StatusCode::UNAUTHORIZED, "missing_token", message)
    }

    /// The same error for every bad token. Only the audit log says what is wrong with it.
    pub(crate) fn bad_token() -> Self {
        let message = "the token is invalid; get a new one from its issuer";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
    }

    pub(crate) fn not_admin() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "admin_required",
            "this route requires the role admin; use the key or token of an admin",
        )
    }

    pub(crate) fn too_many_failures(wait: Duration) -> Self {
        let message =
            "too many invalid keys or tokens from this address; retry after the time in Retry-After";
        Self {
            retry_after: Some(wait),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message)
        }
    }

    pub(crate) fn rate_limited(kind: RateLimitKind, rates: &Rates, wait: Duration) -> Self {
        let message = match (kind, rates.requests, rates.tokens) {
            (RateLimitKind::Tokens, _, Some(rate)) => {
                format!("too many tokens: the limit is {} per minute", rate.burst)
            }
            (_, Some(rate), _) => {
                format!(
                    "too many requests: the limit is {} per second, with bursts of {}",
                    rate.per_second_value(),
                    rate.burst
                )
            }
            _ => "too many requests".to_owned(),
        };
        Self {
            retry_after: Some(wait),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                format!("{message}; retry after the time in Retry-After"),
            )
        }
    }

    /// One request has more tokens than a minute allows. It is not a 429, because waiting does not help.
    pub(crate) fn exceeds_rate_burst(amount: u32, limit: u32) -> Self {
        let message = format!(
            "input: about {amount} tokens exceed the limit of {limit} per minute; send fewer inputs per request"
        );
        Self { param: Some("input".into()), ..Self::new(StatusCode::BAD_REQUEST, "too_many_tokens", message) }
    }
}
