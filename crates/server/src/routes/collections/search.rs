//! Search in a collection.

use axum::{
    Json,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    body::JsonObject,
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::search::{SearchAnswer, SearchRequest},
};

/// Find the chunks nearest to a text or a vector.
#[utoipa::path(
    post,
    operation_id = "search_collection",
    path = "/api/v1/embeddings/collections/{name}/search",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The best first", body = SearchAnswer,
            headers(("X-Embeddings-Space" = String, description = "The collection's space"))),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 409, description = "The vector is of another space than the collection's", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model or the store is out of reach", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn search(
    desk: CollectionService,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<(HeaderMap, Json<SearchAnswer>), ApiError> {
    let asked = SearchRequest::read(body.0, desk.settings())?;
    let (space, hits) = desk.search(&name, asked).await?;
    let mut headers = HeaderMap::new();
    if let Ok(space) = HeaderValue::from_str(space.as_str()) {
        headers.insert(HeaderName::from_static("x-embeddings-space"), space);
    }
    Ok((headers, Json(hits.into())))
}
