//! What operators do to the jobs of all users, at the paths of the replaced service.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};

use crate::{
    App,
    auth::Admin,
    body::JsonBody,
    error::{ApiError, ErrorBody},
    jobs::parse_job_id,
    routes::common_errors::{AdminErrors, JobStoreErrors, QueueErrors},
    wire::{
        jobs::view::priority_name,
        operator::jobs::{
            BumpJobPriorityRequest, BumpJobPriorityResponse, JobSkipStatusQuery, JobSkipStatusResponse,
            LedgerEntry, LedgerQuery, LedgerResponse, SkipJobRequest, SkipJobResponse,
        },
    },
};

/// Skip the unfinished documents of a job of any user.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/job/skip",
    tag = "operation",
    request_body = SkipJobRequest,
    responses(
        (status = 200, description = "It is skipped", body = SkipJobResponse),
        AdminErrors,
        JobStoreErrors,
        (status = 404, description = "No such job", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn skip_job(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SkipJobRequest>,
) -> Result<Json<SkipJobResponse>, ApiError> {
    let unknown = || ApiError::unknown_job(&request.job_id);
    let id = parse_job_id(&request.job_id).ok_or_else(unknown)?;
    if !app.jobs.store.skip(id).await? {
        return Err(unknown());
    }
    app.jobs.remove_from_queue(id).await;
    tracing::info!(job = %id, "job skipped by an administrator");
    let ttl_seconds = request.ttl_seconds();
    Ok(Json(SkipJobResponse { ok: true, job_id: request.job_id, ttl_seconds }))
}

/// Get whether a job is skipped.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/job/skip/status",
    tag = "operation",
    params(JobSkipStatusQuery),
    responses(
        (status = 200, description = "Whether it is; an unknown job is not", body = JobSkipStatusResponse),
        AdminErrors,
        JobStoreErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn get_job_skip_status(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<JobSkipStatusQuery>, QueryRejection>,
) -> Result<Json<JobSkipStatusResponse>, ApiError> {
    let Query(JobSkipStatusQuery { job_id: text }) =
        query.map_err(|error| ApiError::invalid("job_id", error.body_text()))?;
    let skipped = match parse_job_id(&text) {
        Some(id) => app.jobs.store.skipped(id).await?,
        None => false,
    };
    Ok(Json(JobSkipStatusResponse { job_id: text, skipped }))
}

/// Change the priority of a job.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/job/priority/bump",
    tag = "operation",
    request_body = BumpJobPriorityRequest,
    responses(
        (status = 200, description = "The waiting documents of the job have this priority", body = BumpJobPriorityResponse),
        AdminErrors,
        QueueErrors,
        (status = 404, description = "No such job is running", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn bump_job_priority(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<BumpJobPriorityRequest>,
) -> Result<Json<BumpJobPriorityResponse>, ApiError> {
    let priority = request.priority()?;
    let unknown = || ApiError::unknown_job(&request.job_id);
    let id = parse_job_id(&request.job_id).ok_or_else(unknown)?;
    if !app.jobs.store.reprioritize(id, priority).await? {
        return Err(unknown());
    }
    app.jobs.queue.reprioritize(id, priority).await?;
    let (ttl_seconds, priority) = (request.ttl_seconds(), priority_name(priority));
    Ok(Json(BumpJobPriorityResponse { status: "ok", job_id: request.job_id, priority, ttl_seconds }))
}

/// Find the job of an idempotency key.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/ledger/status",
    tag = "operation",
    params(LedgerQuery),
    responses(
        (status = 200, description = "The newest job of this key, or null", body = LedgerResponse),
        AdminErrors,
        JobStoreErrors,
        (status = 400, description = "Neither key is sent", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn find_job_by_idempotency_key(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Json<LedgerResponse>, ApiError> {
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
    Ok(Json(LedgerResponse { idempotency, dedupe: None }))
}
