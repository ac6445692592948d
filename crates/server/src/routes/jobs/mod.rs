//! Jobs: documents that are cut, embedded and stored while nobody waits.

pub(super) mod events;
pub(super) mod operator;
mod submission;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse as _, Response},
};
use embeddery_pipeline::{DocumentState, Job, Page};

use crate::{
    App,
    auth::Caller,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    jobs::{JobHeaders, job_id},
    wire::jobs::{
        JobDocumentsQuery, JobQuery, JobRequest, JobsQuery, limit,
        view::{JobAnswer, JobDocumentsAnswer, JobView, JobsAnswer, STATES, is_at_work, statuses},
        word,
    },
};
use submission::Submission;

/// Failed documents that a job's answer shows.
const ERRORS: usize = 100;

/// Submit documents to be cut, embedded and stored.
///
/// As one JSON body, up to 10 000 documents; or as lines of JSON, one document each, with what else is to be said in
/// the query: `?collection=notes`. Lines are read as they come; when one cannot be taken, or too much waits by then,
/// nothing is kept. Sent again with the same `Idempotency-Key`, the same body gets the same job. A document that the collection has is compared:
/// chunks that are the same cost nothing.
#[utoipa::path(
    post,
    operation_id = "submit_job",
    path = "/api/v1/embeddings/jobs",
    tag = "jobs",
    params(
        JobQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again"),
    ),
    request_body(content((JobRequest = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 202, description = "It is stored and will be worked on; the header Location says where to look", body = JobView),
        (status = 400, description = "A value that cannot be used, no JSON, or a line that cannot be taken", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "Nobody serves this model", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 409, description = "The key was used for another body, or the collection is bound to another model", body = ErrorBody),
        (status = 413, description = "The body, a line, or the job is too large", body = ErrorBody),
        (status = 415, description = "The body is neither announced as JSON nor as lines of JSON", body = ErrorBody),
        (status = 422, description = "The body, or a line, does not fit the schema", body = ErrorBody),
        (status = 429, description = "Too much waits, or too many jobs run; come back after Retry-After", body = ErrorBody),
        (status = 503, description = "The queue or a store is out of reach", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn submit(
    desk: CollectionService,
    sender: JobHeaders,
    query: Result<Query<JobQuery>, QueryRejection>,
    body: Submission,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let job = body.submit(&desk, sender, query).await?;
    let location = format!("/api/v1/embeddings/jobs/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(JobView::from(&job))).into_response())
}

/// The caller's jobs, newest first.
#[utoipa::path(
    get,
    operation_id = "list_jobs",
    path = "/api/v1/embeddings/jobs",
    tag = "jobs",
    params(JobsQuery),
    responses(
        (status = 200, description = "The page", body = JobsAnswer),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list(
    caller: Caller,
    State(app): State<Arc<App>>,
    query: Result<Query<JobsQuery>, QueryRejection>,
) -> Result<Json<JobsAnswer>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let after = match &query.after {
        None => None,
        Some(after) => Some(job_id(after).ok_or_else(|| {
            ApiError::invalid(
                "after",
                format!("after is '{after}', which is no job's id; send `next` of the page before"),
            )
        })?),
    };
    let limit = limit(query.limit)?;
    let page = Page { state: word("status", query.status.as_deref(), &statuses())?, after, limit };
    let jobs = app.jobs.store.jobs(caller.identity.user.as_str(), page).await?;
    Ok(Json(JobsAnswer::new(&jobs, limit)))
}

/// A job: how far it is, when it will be done, what went wrong.
#[utoipa::path(
    get,
    operation_id = "get_job",
    path = "/api/v1/embeddings/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = JobAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "The caller has no such job", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<JobAnswer>, ApiError> {
    let job = app.jobs.find(caller.identity.user.as_str(), &id).await?;
    let failed = job.documents.get(&DocumentState::Failed).copied().unwrap_or(0);
    let errors = match failed {
        0 => Vec::new(),
        _ => {
            let page = Page { state: Some(DocumentState::Failed), after: None, limit: ERRORS };
            app.jobs.store.documents(job.id, page).await?
        }
    };
    Ok(Json(JobAnswer::new(&job, errors, notice(&app, &job).await)))
}

/// Why a job that has not ended does not move, if that is known.
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

/// A job's documents, by their place.
#[utoipa::path(
    get,
    operation_id = "list_job_documents",
    path = "/api/v1/embeddings/jobs/{id}/documents",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), JobDocumentsQuery),
    responses(
        (status = 200, description = "The page", body = JobDocumentsAnswer),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "The caller has no such job", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn documents(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<JobDocumentsQuery>, QueryRejection>,
) -> Result<Json<JobDocumentsAnswer>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let limit = limit(query.limit)?;
    let page = Page { state: word("status", query.status.as_deref(), &STATES)?, after: query.after, limit };
    let job = app.jobs.find(caller.identity.user.as_str(), &id).await?;
    let rows = app.jobs.store.documents(job.id, page).await?;
    // A queue that does not answer keeps nobody from seeing how far the documents are.
    let flows = match rows.iter().any(|row| is_at_work(row.state)) {
        true => app.jobs.queue.stage_modes().await.unwrap_or_default(),
        false => BTreeMap::new(),
    };
    Ok(Json(JobDocumentsAnswer::new(rows, limit, &flows)))
}

/// Cancel a job. What is stored stays; nothing more is.
#[utoipa::path(
    delete,
    operation_id = "cancel_job",
    path = "/api/v1/embeddings/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 202, description = "It is cancelled", body = JobView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "The caller has no such job", body = ErrorBody),
        (status = 409, description = "It has ended", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn cancel(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job = app.jobs.cancel(caller.identity.user.as_str(), &id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobView::from(&job))))
}

/// Let a job's failed documents run again, each from the stage it failed at.
#[utoipa::path(
    post,
    operation_id = "retry_job",
    path = "/api/v1/embeddings/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 202, description = "They run again", body = JobView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "The caller has no such job", body = ErrorBody),
        (status = 409, description = "Nothing has failed, or the job was cancelled", body = ErrorBody),
        (status = 429, description = "Too much waits already; come back after Retry-After", body = ErrorBody),
        (status = 503, description = "The queue or the store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn retry(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job = app.jobs.retry(caller.identity.user.as_str(), &id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobView::from(&job))))
}
