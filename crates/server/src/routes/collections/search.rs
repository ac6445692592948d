//! Search in a collection.

use axum::{
    Json,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue},
};

use crate::routes::common_errors::EmbedCollectionErrors;
use crate::{
    body::JsonBody,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::search::{SearchRequest, SearchResponse},
};

/// Find the chunks nearest to a text or a vector.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections/{name}/search",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The best first", body = SearchResponse,
            headers(("X-Embeddings-Space" = String, description = "The collection's space"))),
        EmbedCollectionErrors,
        (status = 409, description = "The vector is of another space than the collection's", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn search_collection(
    service: CollectionService,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<SearchRequest>,
) -> Result<(HeaderMap, Json<SearchResponse>), ApiError> {
    let found = service.search(&name, request.check(service.settings())?).await?;
    let mut headers = HeaderMap::new();
    if let Ok(space) = HeaderValue::from_str(found.space.as_str()) {
        headers.insert(HeaderName::from_static("x-embeddings-space"), space);
    }
    Ok((headers, Json(SearchResponse::new(found.score_kind, found.hits))))
}
