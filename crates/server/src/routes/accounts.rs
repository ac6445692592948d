//! Quotas and usage of the caller.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use embeddery_accounts::{
    Role, UserId,
    ledger::UsageFilter,
    limit::{RateLimitKey, RateLimitKind},
};

use super::common_errors::StoreErrors;
use crate::{
    App,
    auth::Caller,
    error::{ApiError, ErrorBody},
    wire::accounts::{MAX_ENTRIES, QuotaState, QuotasResponse, UsageQuery, UsageResponse},
};

/// Get the rates and quotas of the caller, and what is used. This request is not counted.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/tenant/quotas",
    tag = "accounts",
    responses(
        (status = 200, description = "Limits, what is used and what is left", body = QuotasResponse),
        StoreErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_quotas(
    caller: Caller,
    State(app): State<Arc<App>>,
) -> Result<Json<QuotasResponse>, ApiError> {
    let user = &caller.identity.user;
    let (limiter, ledger) = (&app.accounts.limiter, &app.accounts.ledger);
    let payer = RateLimitKey::user(user);
    let requests = limiter.peek(RateLimitKind::Requests, &payer).await;
    let tokens = limiter.peek(RateLimitKind::Tokens, &payer).await;
    let mut used = ledger.used(user).await.map_err(|error| unreadable(&error))?;
    used.jobs = app.jobs.store.unfinished_jobs(user.as_str()).await?;
    let quotas = ledger.quotas();
    Ok(Json(QuotaState { user: user.as_str(), limiter, requests, tokens, quotas, used }.into()))
}

/// Get the usage by day, user, provider and model: the caller's own; for admins that of all users.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/usage",
    tag = "accounts",
    params(UsageQuery),
    responses(
        (status = 200, description = "Usage, as JSON or CSV", content((UsageResponse = "application/json"), (String = "text/csv"))),
        (status = 403, description = "The caller requests the usage of another user and is not an administrator", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_usage(
    caller: Caller,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| {
        ApiError::invalid("query", format!("the query cannot be read: {}", error.body_text()))
    })?;
    let identity = caller.identity;
    let user = match (identity.role, query.user) {
        (Role::Admin, requested) => requested.map(UserId::new),
        (Role::User, Some(requested)) if requested != identity.user.as_str() => {
            return Err(ApiError::not_admin());
        }
        (Role::User, _) => Some(identity.user),
    };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let csv = match query.format.as_deref() {
        Some("csv") => true,
        Some("json") => false,
        None => accept.contains("text/csv"),
        Some(other) => {
            return Err(ApiError::invalid(
                "format",
                format!("format: '{other}' is unknown; write json or csv"),
            ));
        }
    };
    let filter = UsageFilter {
        user,
        from: day("from", query.from)?,
        to: day("to", query.to)?,
        limit: MAX_ENTRIES as u32 + 1,
    };
    let response =
        UsageResponse::new(app.accounts.ledger.report(filter).await.map_err(|error| unreadable(&error))?);
    Ok(if csv {
        ([(CONTENT_TYPE, "text/csv; charset=utf-8")], response.csv()).into_response()
    } else {
        Json(response).into_response()
    })
}

fn day(name: &'static str, text: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::civil::Date>() {
        Ok(date) => Ok(Some(date.to_string())),
        Err(_) => {
            Err(ApiError::invalid(name, format!("{name}: '{text}' is not a date; write it as 2026-11-25")))
        }
    }
}

fn unreadable(error: &str) -> ApiError {
    tracing::error!(error, "usage could not be read");
    ApiError::internal()
}
