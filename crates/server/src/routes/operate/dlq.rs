//! Dead letters: looked at, judged, run again, removed.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use embeddery_pipeline::{DeadLetterId, Stage};

use super::summary::{depths, done};
use crate::{
    App,
    auth::Admin,
    body::JsonObject,
    error::{ApiError, ErrorBody},
    jobs::dead_letters::{RequeueOutcome, RequeueOverrides},
    wire::operate::{
        self, Letter, LettersAnswer, LettersQuery, PurgeAnswer, PurgeRequest, Requeue, RequeueAnswer,
        RequeueBulkAnswer, RequeueBulkRequest, RequeueRequest, RequeueResult, Said, StateAnswer,
        StateRequest, StatsAnswer,
    },
};

/// What is said to who wants to keep a letter that runs again.
const KEPT: &str = "what runs again is no dead letter any more; delete_from_dlq: false has no effect";

/// Dead letters of a stage, newest first, with nothing secret in them.
#[utoipa::path(
    get,
    operation_id = "list_dead_letters",
    path = "/api/v1/embeddings/dlq",
    tag = "operation",
    params(LettersQuery),
    responses(
        (status = 200, description = "The newest", body = LettersAnswer),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn list(
    _: Admin,
    State(app): State<Arc<App>>,
    query: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Json<LettersAnswer>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let stage = query.stage.as_deref().map_or(Ok(Stage::Embedding), operate::named)?;
    let letters = app.jobs.list_dead_letters(stage, query.job_id.as_deref(), query.count()?).await?;
    let mut items = Vec::with_capacity(letters.len());
    for (letter, remark) in letters {
        let document =
            if query.with_document == Some(true) { app.jobs.document_of(&letter).await? } else { None };
        items.push(Letter::new(stage, &letter, remark, document));
    }
    Ok(Json(LettersAnswer { stream: operate::dlq(stage), count: items.len(), items }))
}

/// How much waits, how much is dead, what workers have done.
#[utoipa::path(
    get,
    operation_id = "dead_letter_stats",
    path = "/api/v1/embeddings/dlq/stats",
    tag = "operation",
    responses(
        (status = 200, description = "By queue and stage", body = StatsAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn stats(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Result<Json<StatsAnswer>, ApiError> {
    let (queues, dlq) = depths(&app.jobs.queue.depth().await?);
    let stages = done(&app.jobs.queue.workers().await?);
    Ok(Json(StatsAnswer { total_dlq: dlq.values().sum(), queues, dlq, stages }))
}

/// Let a dead letter's document run again, from the stage it failed at.
#[utoipa::path(
    post,
    operation_id = "requeue_dead_letter",
    path = "/api/v1/embeddings/dlq/requeue",
    tag = "operation",
    request_body = RequeueRequest,
    responses(
        (status = 200, description = "It waits for its stage", body = RequeueAnswer),
        (status = 400, description = "A value that cannot be used, no JSON, or an entry that is quarantined or ignored", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 404, description = "No such dead letter", body = ErrorBody),
        (status = 409, description = "It cannot run again: its job is gone or has ended, or it cannot be read", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue or the store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn requeue(
    admin: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<RequeueAnswer>, ApiError> {
    let Requeue { stage, ids, changes, kept } = Requeue::one(body.0, &app.settings)?;
    let id = ids.into_iter().next().ok_or_else(ApiError::internal)?;
    match again(&app, &admin, (stage, &id), changes).await? {
        RequeueOutcome::Done => Ok(Json(RequeueAnswer {
            message: "requeued",
            from: operate::dlq(stage),
            to: operate::queue(stage),
            entry_id: id.0,
            warning: kept.then_some(KEPT),
        })),
        RequeueOutcome::NotFound => Err(ApiError::unknown_letter(&id.0)),
        RequeueOutcome::Blocked(state) => Err(ApiError::invalid(
            "entry_id",
            format!("DLQ entry in state '{}', not approved for requeue", state.as_str()),
        )),
        RequeueOutcome::Unusable(why) => Err(ApiError::stays_dead(why)),
    }
}

/// Lets a letter run again: written down before, counted after.
async fn again(
    app: &App,
    admin: &Admin,
    (stage, id): (Stage, &DeadLetterId),
    changes: RequeueOverrides,
) -> Result<RequeueOutcome, ApiError> {
    admin.changes(app, &subject(stage, id), &changes.names());
    let again = app.jobs.requeue(stage, id, changes).await;
    app.http_metrics.operators.requeued(stage, again.as_ref().map_or("error", RequeueOutcome::status));
    again
}

/// The same for several; each has its own outcome.
#[utoipa::path(
    post,
    operation_id = "requeue_dead_letters",
    path = "/api/v1/embeddings/dlq/requeue/bulk",
    tag = "operation",
    request_body = RequeueBulkRequest,
    responses(
        (status = 200, description = "What came of each", body = RequeueBulkAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue or the store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn requeue_bulk(
    admin: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<RequeueBulkAnswer>, ApiError> {
    let Requeue { stage, ids, changes, kept } = Requeue::bulk(body.0, &app.settings)?;
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let again = again(&app, &admin, (stage, &id), changes.clone()).await?;
        let status = match &again {
            RequeueOutcome::Done => "success".to_owned(),
            RequeueOutcome::NotFound => "not_found".to_owned(),
            RequeueOutcome::Blocked(state) => format!("blocked:{}", state.as_str()),
            RequeueOutcome::Unusable(why) => format!("error:{why}"),
        };
        let warning = (kept && matches!(again, RequeueOutcome::Done)).then_some(KEPT);
        results.push(RequeueResult { entry_id: id.0, status, warning });
    }
    Ok(Json(RequeueBulkAnswer { from: operate::dlq(stage), to: operate::queue(stage), results }))
}

/// Say of a dead letter what is to become of it.
#[utoipa::path(
    post,
    operation_id = "judge_dead_letter",
    path = "/api/v1/embeddings/dlq/state",
    tag = "operation",
    request_body = StateRequest,
    responses(
        (status = 200, description = "It is kept with the letter", body = StateAnswer),
        (status = 400, description = "A value that cannot be used, no JSON, or an approval without a note", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 404, description = "No such dead letter", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn state(
    admin: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<StateAnswer>, ApiError> {
    let Said { stage, id, remark } = Said::read(body.0)?;
    admin.changes(&app, &subject(stage, &id), remark.state.as_str());
    if !app.jobs.remark(stage, &id, &remark).await? {
        return Err(ApiError::unknown_letter(&id.0));
    }
    let state = remark.state.as_str();
    Ok(Json(StateAnswer { ok: true, stream: operate::dlq(stage), entry_id: id.0, state }))
}

/// A letter's name in the audit log.
fn subject(stage: Stage, id: &DeadLetterId) -> String {
    format!("{}/{}", operate::dlq(stage), id.0)
}

/// Remove dead letters for good. Their documents stay failed in their jobs.
#[utoipa::path(
    post,
    operation_id = "purge_dead_letters",
    path = "/api/v1/embeddings/dlq/purge",
    tag = "operation",
    request_body = PurgeRequest,
    responses(
        (status = 200, description = "They are gone", body = PurgeAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn purge(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<PurgeAnswer>, ApiError> {
    let (stage, ids) = operate::purge(body.0)?;
    let purged = app.jobs.purge(stage, ids).await?;
    tracing::info!(stage = stage.as_str(), purged, "dead letters are removed by an administrator");
    Ok(Json(PurgeAnswer { stream: operate::dlq(stage), purged }))
}
