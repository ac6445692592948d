//! A collection's documents.

use axum::{
    Json,
    extract::{Path, Query, rejection::QueryRejection},
    http::StatusCode,
};
use embeddery_store::{DeleteTarget, PageRequest, StoreError};

use crate::routes::common_errors::{CollectionErrors, DiskErrors, EmbedCollectionErrors};
use crate::{
    body::JsonBody,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::documents::{
        AddDocumentsRequest, AddDocumentsResponse, CheckedDocuments, DeleteDocumentsRequest,
        DeleteDocumentsResponse, Deletion, DocumentListResponse, DocumentResponse, PageQuery,
    },
};

/// Add documents, or new versions of them. Searches find them as soon as this responds.
///
/// The chunks of a stored document are compared: equal ones cost nothing, changed ones are replaced, missing ones are
/// removed. A search sees the old version or the new one, never a mixture. All documents are stored, or none. Of equal
/// documents without an id one is stored, and `duplicate_of` marks the others.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = AddDocumentsRequest,
    responses(
        (status = 200, description = "They are stored", body = AddDocumentsResponse),
        EmbedCollectionErrors,
        DiskErrors,
        (status = 409, description = "The model's vectors are of another space than the collection's", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn add_documents(
    service: CollectionService,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<AddDocumentsRequest>,
) -> Result<Json<AddDocumentsResponse>, ApiError> {
    let checked = request.check(service.settings())?;
    let positions = checked.positions();
    let CheckedDocuments { documents, sent, chunking } = checked;
    let added = service.add(&name, documents, &positions, chunking).await?;
    Ok(Json(AddDocumentsResponse::new(added, sent)))
}

/// List documents by id.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection"), PageQuery),
    responses(
        (status = 200, description = "The page", body = DocumentListResponse),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn list_documents(
    service: CollectionService,
    Path(name): Path<String>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<DocumentListResponse>, ApiError> {
    let Query(query) = page.map_err(|error| ApiError::invalid("limit", error.body_text()))?;
    let limit = query.limit()?;
    let page = PageRequest { after: query.after.as_deref(), limit };
    let documents = service.store().documents(service.collection_ref(&name), page).await?;
    Ok(Json(DocumentListResponse::new(documents, limit)))
}

/// Get a document with its chunks.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections/{name}/documents/{id}",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The collection"),
        ("id" = String, Path, description = "The document; a slash in its id is written %2F"),
    ),
    responses(
        (status = 200, description = "The document", body = DocumentResponse),
        CollectionErrors,
        (status = 404, description = "No such collection or document", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn get_document(
    service: CollectionService,
    Path((name, document)): Path<(String, String)>,
) -> Result<Json<DocumentResponse>, ApiError> {
    Ok(Json(service.store().document(service.collection_ref(&name), &document).await?.into()))
}

/// Delete a document.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/collections/{name}/documents/{id}",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The collection"),
        ("id" = String, Path, description = "The document; a slash in its id is written %2F"),
    ),
    responses(
        (status = 204, description = "It is deleted"),
        CollectionErrors,
        (status = 404, description = "No such collection or document", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete_document(
    service: CollectionService,
    Path((name, document)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let ids = [document];
    let deleted = service.store().delete(service.collection_ref(&name), DeleteTarget::Ids(&ids)).await?;
    service.recount().await;
    match deleted {
        0 => Err(StoreError::no_document(&name, &ids[0]).into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Delete the documents with these ids, those that match a filter, or all.
///
/// A filter that every document matches is refused. To delete all documents, send `all` and the name of the collection.
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/collections/{name}/documents",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = DeleteDocumentsRequest,
    responses(
        (status = 200, description = "How many were deleted", body = DeleteDocumentsResponse),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete_documents(
    service: CollectionService,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<DeleteDocumentsRequest>,
) -> Result<Json<DeleteDocumentsResponse>, ApiError> {
    let deletion = request.check(&name)?;
    let removal = match &deletion {
        Deletion::Filter(filter) => DeleteTarget::Where(filter),
        Deletion::Ids(ids) => DeleteTarget::Ids(ids),
        Deletion::All => DeleteTarget::All,
    };
    let deleted = service.store().delete(service.collection_ref(&name), removal).await?;
    service.recount().await;
    Ok(Json(DeleteDocumentsResponse { deleted }))
}
