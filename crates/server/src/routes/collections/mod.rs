//! Collections of the caller: made, listed, looked at, deleted, moved to another model.

pub(super) mod archive;
pub(super) mod documents;
pub(super) mod search;
pub(super) mod user;

use axum::{Json, extract::Path, http::StatusCode};
use embeddery_store::NewCollection;

use crate::{
    body::JsonObject,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::{CollectionView, CreateRequest, ReembedAnswer, ReembedRequest, StatsView},
};

/// Make a collection.
///
/// It is bound to the space of its model's vectors: the model is asked for one. Vectors of another space are
/// refused from then on.
#[utoipa::path(
    post,
    operation_id = "create_collection",
    path = "/api/v1/embeddings/collections",
    tag = "collections",
    request_body = CreateRequest,
    responses(
        (status = 201, description = "It is there", body = CollectionView),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "Nobody serves this model", body = ErrorBody),
        (status = 409, description = "A collection of this name is there", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model is on its way here, or the store is out of reach", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create(
    desk: CollectionService,
    body: JsonObject,
) -> Result<(StatusCode, Json<CollectionView>), ApiError> {
    let asked = CreateRequest::read(body.0)?;
    let binding = desk.bind(&asked.embedding_model).await?;
    let new = NewCollection { binding, metadata: asked.metadata, submission: None };
    let made = desk.store().create(desk.collection_ref(&asked.name), new).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// The caller's collections, by name.
#[utoipa::path(
    get,
    operation_id = "list_collections",
    path = "/api/v1/embeddings/collections",
    tag = "collections",
    responses(
        (status = 200, description = "All of them", body = Vec<CollectionView>),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list(desk: CollectionService) -> Result<Json<Vec<CollectionView>>, ApiError> {
    let all = desk.store().list(desk.tenant()).await?;
    Ok(Json(all.into_iter().map(CollectionView::from).collect()))
}

/// A collection.
#[utoipa::path(
    get,
    operation_id = "get_collection",
    path = "/api/v1/embeddings/collections/{name}",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "The collection", body = CollectionView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get(
    desk: CollectionService,
    Path(name): Path<String>,
) -> Result<Json<CollectionView>, ApiError> {
    Ok(Json(desk.store().get(desk.collection_ref(&name)).await?.into()))
}

/// Delete a collection with all in it.
#[utoipa::path(
    delete,
    operation_id = "delete_collection",
    path = "/api/v1/embeddings/collections/{name}",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn delete(
    desk: CollectionService,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    desk.store().drop_collection(desk.collection_ref(&name)).await?;
    desk.recount().await;
    Ok(StatusCode::NO_CONTENT)
}

/// A collection and how much it holds.
#[utoipa::path(
    get,
    operation_id = "stats_collection",
    path = "/api/v1/embeddings/collections/{name}/stats",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "Counts, and how far a move to another model is", body = StatsView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn stats(
    desk: CollectionService,
    Path(name): Path<String>,
) -> Result<Json<StatsView>, ApiError> {
    Ok(Json(desk.store().stats(desk.collection_ref(&name)).await?.into()))
}

/// Move a collection to another model.
///
/// In the background: until the last vector is made, searches and writes go on with the old model; then the
/// collection switches in one step. `stats` shows how far it is. Asking again goes on with a move that was stopped.
#[utoipa::path(
    post,
    operation_id = "reembed_collection",
    path = "/api/v1/embeddings/collections/{name}/reembed",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = ReembedRequest,
    responses(
        (status = 202, description = "It has begun", body = ReembedAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection, or nobody serves this model", body = ErrorBody),
        (status = 409, description = "It is in this space already, or a move runs", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model is on its way here, or the store is out of reach", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reembed(
    desk: CollectionService,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<(StatusCode, Json<ReembedAnswer>), ApiError> {
    let model = ReembedRequest::read(body.0)?;
    let bindings = desk.reembed(&name, &model).await?;
    Ok((StatusCode::ACCEPTED, Json(ReembedAnswer::new(name, bindings))))
}
