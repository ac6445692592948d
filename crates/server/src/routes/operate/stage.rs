//! Stages: how they flow.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};

use crate::{
    App,
    auth::Admin,
    body::JsonObject,
    error::{ApiError, ErrorBody},
    wire::operate::{self, ControlAnswer, ControlRequest, Flags},
};

/// How each stage flows.
#[utoipa::path(
    get,
    operation_id = "stage_status",
    path = "/api/v1/embeddings/stage/status",
    tag = "operation",
    responses(
        (status = 200, description = "By stage", body = BTreeMap<String, Flags>),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn status(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Result<Json<BTreeMap<&'static str, Flags>>, ApiError> {
    let flow = app.jobs.queue.stage_modes().await?;
    Ok(Json(flow.into_iter().map(|(stage, flow)| (stage.as_str(), flow.into())).collect()))
}

/// Pause, resume or drain a stage. Nothing is lost, whichever.
#[utoipa::path(
    post,
    operation_id = "stage_control",
    path = "/api/v1/embeddings/stage/control",
    tag = "operation",
    request_body = ControlRequest,
    responses(
        (status = 200, description = "It flows so, also after restarts", body = ControlAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The queue is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn control(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<ControlAnswer>, ApiError> {
    let (stages, action, flow) = operate::control(body.0)?;
    for &stage in &stages {
        app.jobs.queue.set_stage_mode(stage, flow).await?;
    }
    let stages: Vec<&'static str> = stages.into_iter().map(|stage| stage.as_str()).collect();
    tracing::info!(stages = stages.join(","), action, "stages flow as an administrator wants");
    Ok(Json(ControlAnswer { ok: true, stages, action }))
}
