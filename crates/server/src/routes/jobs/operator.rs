//! What operators do to anybody's jobs, at the paths of the replaced service.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};

use crate::{
    App,
    auth::Admin,
    body::JsonObject,
    error::{ApiError, ErrorBody},
    jobs::job_id,
    wire::jobs::{
        operator::{
            Asked, BumpAnswer, BumpRequest, LedgerAnswer, LedgerEntry, LedgerQuery, SkipAnswer, SkipQuery,
            SkipRequest, SkippedAnswer,
        },
        view::priority,
    },
};

/// Leave out what is not done of a job, whoever's it is.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/job/skip",
    tag = "operation",
    request_body = SkipRequest,
    responses(
        (status = 200, description = "It is left out", body = SkipAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn skip(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<SkipAnswer>, ApiError> {
    let Asked { job_id: text, what: (), ttl_seconds } = Asked::skip(body.0)?;
    let unknown = || ApiError::unknown_job(&text);
    let id = job_id(&text).ok_or_else(unknown)?;
    if !app.jobs.store.skip(id).await? {
        return Err(unknown());
    }
    app.jobs.remove_from_queue(id).await;
    tracing::info!(job = %id, "a job is skipped by an administrator");
    Ok(Json(SkipAnswer { ok: true, job_id: text, ttl_seconds }))
}

/// Whether a job is left out.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/job/skip/status",
    tag = "operation",
    params(SkipQuery),
    responses(
        (status = 200, description = "Whether it is; a job that nobody knows is not", body = SkippedAnswer),
        (status = 400, description = "job_id is missing", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn skip_status(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<SkipQuery>, QueryRejection>,
) -> Result<Json<SkippedAnswer>, ApiError> {
    let Query(SkipQuery { job_id: text }) =
        query.map_err(|error| ApiError::invalid("job_id", error.body_text()))?;
    let skipped = match job_id(&text) {
        Some(id) => app.jobs.store.skipped(id).await?,
        None => false,
    };
    Ok(Json(SkippedAnswer { job_id: text, skipped }))
}

/// Change who goes first.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/job/priority/bump",
    tag = "operation",
    request_body = BumpRequest,
    responses(
        (status = 200, description = "What waits of the job has this priority now", body = BumpAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 404, description = "No job of this id runs", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue or the store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn bump(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<BumpAnswer>, ApiError> {
    let Asked { job_id: text, what, ttl_seconds } = Asked::bump(body.0)?;
    let unknown = || ApiError::unknown_job(&text);
    let id = job_id(&text).ok_or_else(unknown)?;
    if !app.jobs.store.reprioritize(id, what).await? {
        return Err(unknown());
    }
    app.jobs.queue.reprioritize(id, what).await?;
    Ok(Json(BumpAnswer { status: "ok", job_id: text, priority: priority(what), ttl_seconds }))
}

/// What became of a request that was sent with a key.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/ledger/status",
    tag = "operation",
    params(LedgerQuery),
    responses(
        (status = 200, description = "The newest job of this key, or null", body = LedgerAnswer),
        (status = 400, description = "Neither key is given", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn ledger(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Json<LedgerAnswer>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    if query.idempotency_key.is_none() && query.dedupe_key.is_none() {
        let message = "send idempotency_key or dedupe_key: the key whose request you look for";
        return Err(ApiError::invalid("idempotency_key", message));
    }
    let idempotency = match query.idempotency_key {
        None => None,
        Some(key) => {
            let jobs = app.jobs.store.find_by_idempotency_key(&key).await?;
            jobs.first().map(|job| LedgerEntry::new(key, job, app.jobs.limits.retention))
        }
    };
    Ok(Json(LedgerAnswer { idempotency, dedupe: None }))
}
