//! Jobs: documents that are split, embedded and stored in the background.

pub(super) mod events;
mod submission;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse as _, Response},
};
use embeddery_pipeline::{DocumentState, Job, Page};

use crate::routes::common_errors::{DiskErrors, JobErrors, JobStoreErrors, QueueErrors};
use crate::{
    App,
    auth::Caller,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    jobs::{JobHeaders, parse_job_id},
    wire::jobs::{
        JobDocumentsQuery, JobQuery, JobRequest, JobsQuery, enum_param, page_limit,
        view::{
            DOCUMENT_STATES, JobDocumentListResponse, JobListResponse, JobResponse, JobView, is_unfinished,
            statuses,
        },
    },
};
use submission::Submission;

/// Maximum number of failed documents in the response for a job.
const MAX_ERRORS: usize = 100;

/// Submit documents to be split, embedded and stored.
///
/// As one JSON body, up to 10 000 documents; or as lines of JSON, one document each, with the other parameters in the
/// query: `?collection=notes`. Lines are read as they arrive; when one is invalid, or the queue is full by then, nothing
/// is kept. The same body with the same `Idempotency-Key` gets the same job. The chunks of a stored document are
/// compared: equal ones cost nothing.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/jobs",
    tag = "jobs",
    params(
        JobQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again"),
    ),
    request_body(content((JobRequest = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 202, description = "It is stored and will be processed; the header Location has its URL", body = JobView),
        QueueErrors,
        DiskErrors,
        (status = 400, description = "An invalid value, a body that is not JSON, or an invalid line", body = ErrorBody),
        (status = 404, description = "No provider serves this model", body = ErrorBody),
        (status = 409, description = "The key was used for another body, or the collection is bound to another model", body = ErrorBody),
        (status = 413, description = "The body, a line or the job is too large", body = ErrorBody),
        (status = 422, description = "The body or a line does not fit the schema", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn submit_job(
    service: CollectionService,
    headers: JobHeaders,
    query: Result<Query<JobQuery>, QueryRejection>,
    body: Submission,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let job = body.submit(&service, headers, query).await?;
    let location = format!("/api/v1/embeddings/jobs/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(JobView::from(&job))).into_response())
}

/// List the caller's jobs, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/jobs",
    tag = "jobs",
    params(JobsQuery),
    responses(
        (status = 200, description = "The page", body = JobListResponse),
        JobStoreErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_jobs(
    caller: Caller,
    State(app): State<Arc<App>>,
    query: Result<Query<JobsQuery>, QueryRejection>,
) -> Result<Json<JobListResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let after = match &query.after {
        None => None,
        Some(after) => Some(parse_job_id(after).ok_or_else(|| {
            ApiError::invalid(
                "after",
                format!("after: '{after}' is not the id of a job; send `next` of the previous page"),
            )
        })?),
    };
    let limit = page_limit(query.limit)?;
    let page = Page { state: enum_param("status", query.status.as_deref(), &statuses())?, after, limit };
    let jobs = app.jobs.store.jobs(caller.identity.user.as_str(), page).await?;
    Ok(Json(JobListResponse::new(&jobs, limit)))
}

/// Get a job with its progress, estimated time and errors.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = JobResponse),
        JobErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_job(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<JobResponse>, ApiError> {
    let job = app.jobs.find(caller.identity.user.as_str(), &id).await?;
    let failed = job.documents.get(&DocumentState::Failed).copied().unwrap_or(0);
    let errors = match failed {
        0 => Vec::new(),
        _ => {
            let page = Page { state: Some(DocumentState::Failed), after: None, limit: MAX_ERRORS };
            app.jobs.store.documents(job.id, page).await?
        }
    };
    Ok(Json(JobResponse::new(&job, errors, notice(&app, &job).await)))
}

/// Why an unfinished job makes no progress, if that is known.
async fn notice(app: &App, job: &Job) -> Option<&'static str> {
    if job.ended_at_ms.is_some() {
        return None;
    }
    match app.jobs.queue.workers().await {
        Ok(workers) if workers.is_empty() => Some("no worker is alive; start `embeddery worker`"),
        Ok(_) => None,
        Err(_) => Some("the queue is out of reach; the job goes on when it is back"),
    }
}

/// List the documents of a job by their index.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/jobs/{id}/documents",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), JobDocumentsQuery),
    responses(
        (status = 200, description = "The page", body = JobDocumentListResponse),
        JobErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_job_documents(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<JobDocumentsQuery>, QueryRejection>,
) -> Result<Json<JobDocumentListResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let limit = page_limit(query.limit)?;
    let page = Page {
        state: enum_param("status", query.status.as_deref(), &DOCUMENT_STATES)?,
        after: query.after,
        limit,
    };
    let job = app.jobs.find(caller.identity.user.as_str(), &id).await?;
    let rows = app.jobs.store.documents(job.id, page).await?;
    // The progress of documents is shown even when the queue cannot be reached.
    let flows = match rows.iter().any(|row| is_unfinished(row.state)) {
        true => app.jobs.queue.stage_modes().await.unwrap_or_default(),
        false => BTreeMap::new(),
    };
    Ok(Json(JobDocumentListResponse::new(rows, limit, &flows)))
}

/// Cancel a job. What is stored stays; the rest is not stored.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 202, description = "It is cancelled", body = JobView),
        JobErrors,
        (status = 409, description = "The job has ended", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn cancel_job(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job = app.jobs.cancel(caller.identity.user.as_str(), &id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobView::from(&job))))
}

/// Retry the failed documents of a job, each from the stage where it failed.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 202, description = "They are retried", body = JobView),
        JobErrors,
        (status = 409, description = "No document has failed, or the job was cancelled", body = ErrorBody),
        (status = 503, description = "The queue or the store of jobs is unavailable", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn retry_job(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job = app.jobs.retry(caller.identity.user.as_str(), &id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobView::from(&job))))
}
