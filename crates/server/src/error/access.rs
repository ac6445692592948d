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

    pub(crate) fn rate_limited(measure: RateLimitKind, rates: &Rates, wait: Duration) -> Self {
        let message = match (measure, rates.requests, rates.tokens) {
            (RateLimitKind::Tokens, _, Some(rate)) => {
                format!("too many tokens: {} a minute may come", rate.burst)
            }
            (_, Some(rate), _) => {
                format!(
                    "too many requests: {} a second may come, {} at once",
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
                format!("{message}; come back after Retry-After"),
            )
        }
    }

    /// One request has more tokens than a minute allows. It is not a 429, because waiting does not help.
    pub(crate) fn exceeds_rate_burst(amount: u32, limit: u32) -> Self {
        let message = format!(
            "input: has about {amount} tokens, and {limit} a minute may come; send fewer inputs in a request"
        );
        Self { param: Some("input".into()), ..Self::new(StatusCode::BAD_REQUEST, "too_many_tokens", message) }
    }
}
