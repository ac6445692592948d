//! Stages: status and control.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};

use crate::{
    App,
    auth::Admin,
    body::JsonBody,
    error::ApiError,
    routes::common_errors::{AdminErrors, QueueErrors},
    wire::operator::stages::{ControlStageRequest, ControlStageResponse, StageControl, StageFlags},
};

/// Get the mode of each stage.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/stage/status",
    tag = "operation",
    responses(
        (status = 200, description = "By stage", body = BTreeMap<String, StageFlags>),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn get_stage_status(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Result<Json<BTreeMap<&'static str, StageFlags>>, ApiError> {
    let flow = app.jobs.queue.stage_modes().await?;
    Ok(Json(flow.into_iter().map(|(stage, flow)| (stage.as_str(), flow.into())).collect()))
}

/// Pause, resume or drain a stage. No task is lost.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/stage/control",
    tag = "operation",
    request_body = ControlStageRequest,
    responses(
        (status = 200, description = "The mode is set, and survives restarts", body = ControlStageResponse),
        AdminErrors,
        QueueErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn control_stage(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ControlStageRequest>,
) -> Result<Json<ControlStageResponse>, ApiError> {
    let StageControl { stages, action, flow } = request.check()?;
    for &stage in &stages {
        app.jobs.queue.set_stage_mode(stage, flow).await?;
    }
    let stages: Vec<&'static str> = stages.into_iter().map(|stage| stage.as_str()).collect();
    tracing::info!(stages = stages.join(","), action, "an administrator changed the mode of stages");
    Ok(Json(ControlStageResponse { ok: true, stages, action }))
}
