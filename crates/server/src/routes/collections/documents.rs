//! A collection's documents.

use axum::{
    Json,
    extract::{Path, Query, rejection::QueryRejection},
    http::StatusCode,
};
use embeddery_store::{DeleteTarget, PageRequest, StoreError};

use crate::{
    body::JsonObject,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::documents::{
        AddAnswer, AddRequest, DeleteAnswer, DeleteRequest, DocumentAnswer, DocumentsAnswer, PageQuery,
    },
};

/// Add documents, or new versions of them. They are found as soon as this answers.
///
/// A document that is there is compared: chunks that are the same cost nothing, changed ones are replaced, missing
/// ones removed. A search sees the old version or the new one, never half. All documents are stored, or none.
#[utoipa::path(
    post,
    operation_id = "add_documents",
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = AddRequest,
    responses(
        (status = 200, description = "They are stored", body = AddAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 409, description = "The model's vectors are of another space than the collection's", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model or the store is out of reach", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn add(
    desk: CollectionService,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<Json<AddAnswer>, ApiError> {
    let asked = AddRequest::read(body.0, desk.settings())?;
    Ok(Json(desk.add(&name, asked.documents, asked.chunking).await?.into()))
}

/// A page of documents, by id.
#[utoipa::path(
    get,
    operation_id = "list_documents",
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection"), PageQuery),
    responses(
        (status = 200, description = "The page", body = DocumentsAnswer),
        (status = 400, description = "A value that cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn list(
    desk: CollectionService,
    Path(name): Path<String>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<DocumentsAnswer>, ApiError> {
    let Query(query) = page.map_err(|error| ApiError::invalid("limit", error.body_text()))?;
    let limit = query.limit()?;
    let page = PageRequest { after: query.after.as_deref(), limit };
    let documents = desk.store().documents(desk.collection_ref(&name), page).await?;
    Ok(Json(DocumentsAnswer::new(documents, limit)))
}

/// A document with its chunks.
#[utoipa::path(
    get,
    operation_id = "get_documents",
    path = "/api/v1/embeddings/collections/{name}/documents/{id}",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The collection"),
        ("id" = String, Path, description = "The document; a slash in it is written %2F"),
    ),
    responses(
        (status = 200, description = "The document", body = DocumentAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection or document", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn get(
    desk: CollectionService,
    Path((name, document)): Path<(String, String)>,
) -> Result<Json<DocumentAnswer>, ApiError> {
    Ok(Json(desk.store().document(desk.collection_ref(&name), &document).await?.into()))
}

/// Delete a document.
#[utoipa::path(
    delete,
    operation_id = "delete_documents",
    path = "/api/v1/embeddings/collections/{name}/documents/{id}",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The collection"),
        ("id" = String, Path, description = "The document; a slash in it is written %2F"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection or document", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete(
    desk: CollectionService,
    Path((name, document)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let ids = [document];
    let deleted = desk.store().delete(desk.collection_ref(&name), DeleteTarget::Ids(&ids)).await?;
    desk.recount().await;
    match deleted {
        0 => Err(StoreError::no_document(&name, &ids[0]).into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Delete the documents that have these ids, or that a filter fits.
#[utoipa::path(
    delete,
    operation_id = "delete_some_documents",
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = DeleteRequest,
    responses(
        (status = 200, description = "How many there were", body = DeleteAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete_some(
    desk: CollectionService,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<Json<DeleteAnswer>, ApiError> {
    let asked = DeleteRequest::read(body.0)?;
    let removal = match (&asked.ids, &asked.filter) {
        (_, Some(filter)) => DeleteTarget::Where(filter),
        (ids, None) => DeleteTarget::Ids(ids.as_deref().unwrap_or_default()),
    };
    let deleted = desk.store().delete(desk.collection_ref(&name), removal).await?;
    desk.recount().await;
    Ok(Json(DeleteAnswer { deleted }))
}
