//! Collections of the caller: create, list, get, delete, move to another model.

pub(super) mod documents;
pub(super) mod export_import;
pub(super) mod search;
pub(super) mod user;

use axum::{Json, extract::Path, http::StatusCode};
use embeddery_store::{NewCollection, StoreError, StoreErrorKind};

use crate::routes::common_errors::{
    CollectionErrors, DiskErrors, EmbedCollectionErrors, ModelErrors, StoreErrors,
};
use crate::{
    body::JsonBody,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::{
        CollectionStats, CollectionView, CreateCollectionRequest, ReembedRequest, ReembedResponse,
    },
};

/// Create a collection.
///
/// The model embeds a text, and the collection is bound to the space of the vector. Vectors of another space are
/// rejected.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections",
    tag = "collections",
    request_body = CreateCollectionRequest,
    responses(
        (status = 201, description = "It is created", body = CollectionView),
        ModelErrors,
        DiskErrors,
        (status = 409, description = "A collection of this name exists", body = ErrorBody),
        (status = 503, description = "The model or the store of collections is unavailable", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_collection(
    service: CollectionService,
    JsonBody(request): JsonBody<CreateCollectionRequest>,
) -> Result<(StatusCode, Json<CollectionView>), ApiError> {
    let (name, metadata, model) = request.check()?;
    // Before the model is called, which may cost something. `create` decides for two requests at once.
    match service.store().get(service.collection_ref(&name)).await {
        Ok(_) => return Err(StoreError::collection_exists(&name).into()),
        Err(error) if error.kind == StoreErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let binding = service.bind(&model).await?;
    let new = NewCollection { binding, metadata, submission: None };
    let created = service.store().create(service.collection_ref(&name), new).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// List the caller's collections by name.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections",
    tag = "collections",
    responses(
        (status = 200, description = "All of them", body = Vec<CollectionView>),
        StoreErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn list_collections(
    service: CollectionService,
) -> Result<Json<Vec<CollectionView>>, ApiError> {
    let all = service.store().list(service.tenant()).await?;
    Ok(Json(all.into_iter().map(CollectionView::from).collect()))
}

/// Get a collection.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections/{name}",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "The collection", body = CollectionView),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_collection(
    service: CollectionService,
    Path(name): Path<String>,
) -> Result<Json<CollectionView>, ApiError> {
    Ok(Json(service.store().get(service.collection_ref(&name)).await?.into()))
}

/// Delete a collection with its documents.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/collections/{name}",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 204, description = "It is deleted"),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn delete_collection(
    service: CollectionService,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    service.store().drop_collection(service.collection_ref(&name)).await?;
    service.recount().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Get a collection with its size.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections/{name}/stats",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "Counts, and the progress of a move to another model", body = CollectionStats),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn get_collection_stats(
    service: CollectionService,
    Path(name): Path<String>,
) -> Result<Json<CollectionStats>, ApiError> {
    Ok(Json(service.store().stats(service.collection_ref(&name)).await?.into()))
}

/// Move a collection to another model.
///
/// In the background: until the last vector is made, searches and writes use the old model; then the collection
/// switches in one step. `stats` shows the progress. The same request resumes a move that was interrupted.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections/{name}/reembed",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = ReembedRequest,
    responses(
        (status = 202, description = "The move has started", body = ReembedResponse),
        EmbedCollectionErrors,
        DiskErrors,
        (status = 404, description = "No such collection, or no provider serves this model", body = ErrorBody),
        (status = 409, description = "The collection has vectors of this space already, or is being moved", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn reembed_collection(
    service: CollectionService,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<ReembedRequest>,
) -> Result<(StatusCode, Json<ReembedResponse>), ApiError> {
    let (from, to) = service.reembed(&name, &request.check()?).await?;
    Ok((StatusCode::ACCEPTED, Json(ReembedResponse::new(name, from, to))))
}
