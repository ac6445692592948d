//! Models: list, download, load, unload.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use embeddery_gateway::{ModelSelector, ResolvedModel};

use super::common_errors::{DownloadErrors, ModelAdminErrors};
use crate::{
    App,
    auth::{Admin, Caller},
    body::JsonBody,
    error::{ApiError, ErrorBody},
    wire::models::{
        ModelActionResponse, ModelList, ModelRequest, ModelResponse, OpenAiModel, OpenAiModelList,
    },
};

/// List models with their states.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/models",
    tag = "models",
    responses(
        (status = 200, description = "Configured models first", body = ModelList),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_models(_: Caller, State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList::new(app.router.models(), &app.router.policy()))
}

/// List models, compatible with OpenAI's API.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "openai",
    responses(
        (status = 200, description = "Configured models first", body = OpenAiModelList),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_models_openai(_: Caller, State(app): State<Arc<App>>) -> Json<OpenAiModelList> {
    Json(app.router.models().into())
}

/// Get a model, compatible with OpenAI's API.
#[utoipa::path(
    get,
    path = "/v1/models/{*id}",
    tag = "openai",
    params(("id" = String, Path, description = "The id or name, which may contain slashes")),
    responses(
        (status = 200, description = "The model", body = OpenAiModel),
        (status = 400, description = "The id is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_model_openai(
    _: Caller,
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<OpenAiModel>, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid("id", "the model's id in the path is not UTF-8 when decoded"));
    };
    let found = app.router.models().into_iter().find(|model| model.id == id);
    found.map(|model| Json(model.into())).ok_or_else(|| ApiError::unknown_model(&id))
}

/// Get a model, with what is known without loading it.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/models/{*id}",
    tag = "models",
    params(("id" = String, Path, description = "The id or name, which may contain slashes")),
    responses(
        (status = 200, description = "The model; the first request reads its weights to compute `space`", body = ModelResponse),
        (status = 400, description = "The id is not UTF-8", body = ErrorBody),
        (status = 403, description = "The allow-list does not include this model", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "The files of the model cannot be read", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_model(
    _: Caller,
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelResponse>, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid("id", "the model's id in the path is not UTF-8 when decoded"));
    };
    let found = app.router.describe(ModelSelector { model: Some(&id), provider: None }).await?;
    found.map(|found| Json(found.into())).ok_or_else(|| ApiError::unknown_model(&id))
}

/// Download a model. Responds when it is on this machine.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/download",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is on this machine", body = ModelActionResponse),
        ModelAdminErrors,
        DownloadErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn download_model(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ModelRequest>,
) -> Result<Json<ModelActionResponse>, ApiError> {
    let resolved = app.router.download(request.check()?.selector()).await?;
    Ok(Json(ModelActionResponse { downloaded: Some(true), ..done(&resolved) }))
}

/// Load a model into memory, so that the next request does not wait for it.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/warmup",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is in memory", body = ModelActionResponse),
        ModelAdminErrors,
        DownloadErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn warm_up_model(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ModelRequest>,
) -> Result<Json<ModelActionResponse>, ApiError> {
    let resolved = app.router.warm_up(request.check()?.selector()).await?;
    Ok(Json(ModelActionResponse { warmed: Some(true), ..done(&resolved) }))
}

/// Unload a model from memory. Requests in progress complete; the next one loads it again.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/unload",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is not in memory; `unloaded` tells whether it was", body = ModelActionResponse),
        ModelAdminErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn unload_model(
    _: Admin,
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ModelRequest>,
) -> Result<Json<ModelActionResponse>, ApiError> {
    let (resolved, unloaded) = app.router.unload(request.check()?.selector()).await?;
    Ok(Json(ModelActionResponse { unloaded: Some(unloaded), ..done(&resolved) }))
}

fn done(resolved: &ResolvedModel) -> ModelActionResponse {
    let ResolvedModel { provider, model } = resolved;
    ModelActionResponse {
        status: "ok",
        provider: provider.as_str(),
        model: model.name.to_string(),
        downloaded: None,
        warmed: None,
        unloaded: None,
    }
}
