//! What a caller may still use, and what was used.

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
    limit::{Measure, Payer},
};

use crate::{
    App,
    auth::Caller,
    error::{ApiError, ErrorBody},
    wire::accounts::{MOST_ENTRIES, QuotasAnswer, Standings, UsageAnswer, UsageQuery},
};

/// Rates and quotas of the caller, and where they stand. Asking costs nothing.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/tenant/quotas",
    tag = "accounts",
    responses(
        (status = 200, description = "Limits, what is used, what is left", body = QuotasAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 503, description = "The database of collections is out of reach", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn quotas(
    caller: Caller,
    State(app): State<Arc<App>>,
) -> Result<Json<QuotasAnswer>, ApiError> {
    let user = &caller.identity.user;
    let (limiter, ledger) = (&app.accounts.limiter, &app.accounts.ledger);
    let payer = Payer::user(user);
    let standings =
        Standings(limiter.look(Measure::Requests, &payer).await, limiter.look(Measure::Tokens, &payer).await);
    let mut used = ledger.used(user).await.map_err(|error| unreadable(&error))?;
    used.jobs = app.jobs.store.unfinished_jobs(user.as_str()).await?;
    Ok(Json(QuotasAnswer::new(user.as_str(), (limiter, standings), (ledger.quotas(), used))))
}

/// What was used, by day, user, provider and model: the caller's own; for admins everybody's.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/usage",
    tag = "accounts",
    params(UsageQuery),
    responses(
        (status = 200, description = "Usage, as JSON or CSV", content((UsageAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "Usage of another user, and the caller is no admin", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn usage(
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
        (Role::Admin, asked) => asked.map(UserId::new),
        (Role::User, Some(asked)) if asked != identity.user.as_str() => return Err(ApiError::not_admin()),
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
        limit: MOST_ENTRIES as u32 + 1,
    };
    let answer =
        UsageAnswer::new(app.accounts.ledger.report(filter).await.map_err(|error| unreadable(&error))?);
    Ok(if csv {
        ([(CONTENT_TYPE, "text/csv; charset=utf-8")], answer.csv()).into_response()
    } else {
        Json(answer).into_response()
    })
}

fn day(name: &'static str, text: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::civil::Date>() {
        Ok(date) => Ok(Some(date.to_string())),
        Err(_) => Err(ApiError::invalid(name, format!("{name}: '{text}' is no day; write it as 2026-11-25"))),
    }
}

fn unreadable(error: &str) -> ApiError {
    tracing::error!(error, "usage could not be read");
    ApiError::internal()
}
