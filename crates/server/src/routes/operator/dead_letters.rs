//! Dead letters: list, decide, requeue, delete.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use embeddery_pipeline::{DeadLetterId, Stage};

use super::summary::{queue_sizes, worker_counts};
use crate::{
    App,
    auth::Admin,
    body::JsonBody,
    error::{ApiError, ErrorBody},
    jobs::dead_letters::{RequeueOutcome, RequeueOverrides},
    routes::common_errors::{AdminErrors, QueueErrors},
    wire::operator::{
        dead_letters::{
            DeadLetterListResponse, DeadLetterQuery, DeadLetterView, Decision, PurgeRequest, PurgeResponse,
            RequeueBulkRequest, RequeueBulkResponse, RequeueParams, RequeueRequest, RequeueResponse,
            RequeueResult, StateRequest, StateResponse,
        },
        stages::{dlq_name, parse_stage, queue_name},
        summary::DeadLetterStatsResponse,
    },
};

/// The warning to a caller that asks to keep a requeued entry.
const KEEP_WARNING: &str =
    "a requeued entry is no longer a dead letter; delete_from_dlq: false has no effect";

/// List the dead letters of a stage, newest first, secrets redacted.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/dlq",
    tag = "operation",
    params(DeadLetterQuery),
    responses(
        (status = 200, description = "The newest", body = DeadLetterListResponse),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn list_dead_letters(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<DeadLetterQuery>, QueryRejection>,
) -> Result<Json<DeadLetterListResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let stage = query.stage.as_deref().map_or(Ok(Stage::Embedding), parse_stage)?;
    let letters = app.jobs.list_dead_letters(stage, query.job_id.as_deref(), query.count()?).await?;
    let mut items = Vec::with_capacity(letters.len());
    for (letter, note) in letters {
        let document = if query.with_document == Some(true) {
            app.jobs.dead_letter_document(&letter).await?
        } else {
            None
        };
        items.push(DeadLetterView::new(stage, &letter, note, document));
    }
    Ok(Json(DeadLetterListResponse { stream: dlq_name(stage), count: items.len(), items }))
}

/// Get the sizes of the queues and dead-letter queues, and the work of the workers.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/dlq/stats",
    tag = "operation",
    responses(
        (status = 200, description = "By queue and stage", body = DeadLetterStatsResponse),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn get_dead_letter_stats(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Result<Json<DeadLetterStatsResponse>, ApiError> {
    let (queues, dlq) = queue_sizes(&app.jobs.queue.depth().await?);
    let stages = worker_counts(&app.jobs.queue.workers().await?);
    Ok(Json(DeadLetterStatsResponse { total_dlq: dlq.values().sum(), queues, dlq, stages }))
}

/// Requeue the document of a dead letter at the stage where it failed.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/dlq/requeue",
    tag = "operation",
    request_body = RequeueRequest,
    responses(
        (status = 200, description = "It waits for its stage", body = RequeueResponse),
        AdminErrors,
        QueueErrors,
        (status = 400, description = "An invalid value, a body that is not JSON, or an entry that is quarantined or ignored", body = ErrorBody),
        (status = 404, description = "No such dead letter", body = ErrorBody),
        (status = 409, description = "The entry cannot be requeued: its job is deleted or has ended, or it cannot be read", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn requeue_dead_letter(
    admin: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<RequeueRequest>,
) -> Result<Json<RequeueResponse>, ApiError> {
    let (id, RequeueParams { stage, changes, keep }) = request.check(&app.settings)?;
    let requeuer = Requeuer { app: &app, admin: &admin, stage };
    match requeuer.requeue(&id, changes).await? {
        RequeueOutcome::Done => Ok(Json(RequeueResponse {
            message: "requeued",
            from: dlq_name(stage),
            to: queue_name(stage),
            entry_id: id.0,
            warning: keep.then_some(KEEP_WARNING),
        })),
        RequeueOutcome::NotFound => Err(ApiError::unknown_dead_letter(&id.0)),
        RequeueOutcome::Blocked(state) => Err(ApiError::invalid(
            "entry_id",
            format!("DLQ entry in state '{}', not approved for requeue", state.as_str()),
        )),
        RequeueOutcome::Unusable(why) => Err(ApiError::dead_letter_not_usable(why)),
    }
}

/// Requeues dead letters of a stage on behalf of an administrator.
struct Requeuer<'a> {
    app: &'a App,
    admin: &'a Admin,
    stage: Stage,
}

impl Requeuer<'_> {
    /// Requeues one. The audit log is written before, the metric after.
    async fn requeue(
        &self,
        id: &DeadLetterId,
        changes: RequeueOverrides,
    ) -> Result<RequeueOutcome, ApiError> {
        self.admin.record_change(self.app, &subject(self.stage, id), &changes.names());
        let outcome = self.app.jobs.requeue(self.stage, id, changes).await;
        let status = outcome.as_ref().map_or("error", RequeueOutcome::status);
        self.app.http_metrics.operators.record_requeue(self.stage, status);
        outcome
    }
}

/// Requeue several dead letters. Each has its own result.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/dlq/requeue/bulk",
    tag = "operation",
    request_body = RequeueBulkRequest,
    responses(
        (status = 200, description = "The result for each", body = RequeueBulkResponse),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn requeue_dead_letters(
    admin: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<RequeueBulkRequest>,
) -> Result<Json<RequeueBulkResponse>, ApiError> {
    let (ids, RequeueParams { stage, changes, keep }) = request.check(&app.settings)?;
    let requeuer = Requeuer { app: &app, admin: &admin, stage };
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let outcome = requeuer.requeue(&id, changes.clone()).await?;
        let status = match &outcome {
            RequeueOutcome::Done => "success".to_owned(),
            RequeueOutcome::NotFound => "not_found".to_owned(),
            RequeueOutcome::Blocked(state) => format!("blocked:{}", state.as_str()),
            RequeueOutcome::Unusable(why) => format!("error:{why}"),
        };
        let warning = (keep && matches!(outcome, RequeueOutcome::Done)).then_some(KEEP_WARNING);
        results.push(RequeueResult { entry_id: id.0, status, warning });
    }
    Ok(Json(RequeueBulkResponse { from: dlq_name(stage), to: queue_name(stage), results }))
}

/// Set the state of a dead letter.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/dlq/state",
    tag = "operation",
    request_body = StateRequest,
    responses(
        (status = 200, description = "It is stored with the dead letter", body = StateResponse),
        AdminErrors,
        QueueErrors,
        (status = 400, description = "An invalid value, a body that is not JSON, or an approval without a note", body = ErrorBody),
        (status = 404, description = "No such dead letter", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn set_dead_letter_state(
    admin: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<StateRequest>,
) -> Result<Json<StateResponse>, ApiError> {
    let Decision { stage, id, note } = request.check()?;
    admin.record_change(&app, &subject(stage, &id), note.state.as_str());
    if !app.jobs.annotate(stage, &id, &note).await? {
        return Err(ApiError::unknown_dead_letter(&id.0));
    }
    let state = note.state.as_str();
    Ok(Json(StateResponse { ok: true, stream: dlq_name(stage), entry_id: id.0, state }))
}

/// The name of a dead letter in the audit log.
fn subject(stage: Stage, id: &DeadLetterId) -> String {
    format!("{}/{}", dlq_name(stage), id.0)
}

/// Delete dead letters. Their documents stay failed in their jobs.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/dlq/purge",
    tag = "operation",
    request_body = PurgeRequest,
    responses(
        (status = 200, description = "They are deleted", body = PurgeResponse),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn purge_dead_letters(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<PurgeRequest>,
) -> Result<Json<PurgeResponse>, ApiError> {
    let (stage, ids) = request.check()?;
    let purged = app.jobs.purge(stage, ids).await?;
    tracing::info!(stage = stage.as_str(), purged, "dead letters deleted by an administrator");
    Ok(Json(PurgeResponse { stream: dlq_name(stage), purged }))
}
