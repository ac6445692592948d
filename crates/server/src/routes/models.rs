//! Which models there are, and how one gets here.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use embeddery_gateway::{ModelSelector, ResolvedModel};

use crate::{
    App,
    auth::{Admin, Caller},
    body::JsonObject,
    error::{ApiError, ErrorBody},
    wire::models::{ModelDone, ModelInfo, ModelRequest, Models, OpenAiModel, OpenAiModels},
};

/// The models here and where each stands.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/models",
    tag = "models",
    responses(
        (status = 200, description = "Configured models first", body = Models),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list(_: Caller, State(app): State<Arc<App>>) -> Json<Models> {
    Json(Models::new(app.router.models(), &app.router.policy()))
}

/// The models here, in OpenAI's form.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "openai",
    responses(
        (status = 200, description = "Configured models first", body = OpenAiModels),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_openai(_: Caller, State(app): State<Arc<App>>) -> Json<OpenAiModels> {
    Json(app.router.models().into())
}

/// One model, in OpenAI's form.
#[utoipa::path(
    get,
    path = "/v1/models/{*id}",
    tag = "openai",
    params(("id" = String, Path, description = "What a request may call it; may hold a slash")),
    responses(
        (status = 200, description = "The model", body = OpenAiModel),
        (status = 400, description = "The id is not UTF-8", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such model here", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_openai(
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

/// One model, with what is known of it without loading it.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/models/{*id}",
    tag = "models",
    params(("id" = String, Path, description = "What a request may call it; may hold a slash")),
    responses(
        (status = 200, description = "The model; the first request reads its weights once, for `space`", body = ModelInfo),
        (status = 400, description = "The id is not UTF-8", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "No such model here", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 503, description = "Its files cannot be used", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get(
    _: Caller,
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelInfo>, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid("id", "the model's id in the path is not UTF-8 when decoded"));
    };
    let found = app.router.describe(ModelSelector { model: Some(&id), provider: None }).await?;
    found.map(|found| Json(found.into())).ok_or_else(|| ApiError::unknown_model(&id))
}

/// Bring a model to this machine. Answers when it is there.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/download",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is here", body = ModelDone),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin, or the allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "Neither here nor on the hub", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 502, description = "What arrived is not what the hub announced", body = ErrorBody),
        (status = 503, description = "The hub is out of reach or refuses", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn download(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<ModelDone>, ApiError> {
    let asked = ModelRequest::read(body.0)?;
    let resolved = app
        .router
        .download(ModelSelector { model: asked.model.as_deref(), provider: asked.provider })
        .await?;
    Ok(Json(ModelDone { downloaded: Some(true), ..done(&resolved) }))
}

/// Load a model, so that the next request does not wait for it.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/warmup",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is in memory", body = ModelDone),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin, or the allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "Neither here nor on the hub", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 502, description = "What arrived is not what the hub announced", body = ErrorBody),
        (status = 503, description = "It is on its way here, or cannot be used", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn warm_up(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<ModelDone>, ApiError> {
    let asked = ModelRequest::read(body.0)?;
    let resolved =
        app.router.warm_up(ModelSelector { model: asked.model.as_deref(), provider: asked.provider }).await?;
    Ok(Json(ModelDone { warmed: Some(true), ..done(&resolved) }))
}

/// Let a model go that is in memory; requests under way are answered, the next one loads it again.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/models/unload",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 200, description = "It is not in memory; `unloaded` says whether it was", body = ModelDone),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin, or the allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The provider is not here", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn unload(
    _: Admin,
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<ModelDone>, ApiError> {
    let asked = ModelRequest::read(body.0)?;
    let (resolved, unloaded) =
        app.router.unload(ModelSelector { model: asked.model.as_deref(), provider: asked.provider }).await?;
    Ok(Json(ModelDone { unloaded: Some(unloaded), ..done(&resolved) }))
}

fn done(resolved: &ResolvedModel) -> ModelDone {
    let ResolvedModel { provider, model } = resolved;
    ModelDone {
        status: "ok",
        provider: provider.as_str(),
        model: model.name.to_string(),
        downloaded: None,
        warmed: None,
        unloaded: None,
    }
}
