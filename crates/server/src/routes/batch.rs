//! `POST /api/v1/embeddings/batch`: embeddings in the form of the replaced service.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};

use super::{
    common_errors::ModelErrors,
    embed_request::{EmbedParams, EmbedRequestParts, EmbedResponse, embed, serialize},
};
use crate::{
    body::JsonBody,
    error::ApiError,
    wire::{
        batch::{BatchRequest, BatchResponse},
        models::parse_provider,
    },
};

/// Create embeddings of texts, in the form of the replaced service.
///
/// As `POST /api/v1/embeddings` with its defaults. Calls to a provider are as large as it allows.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/batch",
    tag = "embeddings",
    request_body = BatchRequest,
    responses(
        (status = 200, description = "The vectors, with the headers of /api/v1/embeddings", body = BatchResponse),
        ModelErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_embeddings_batch(
    parts: EmbedRequestParts,
    JsonBody(mut request): JsonBody<BatchRequest>,
) -> Result<Response, ApiError> {
    let settings = &parts.app.settings;
    let provider = parse_provider(request.provider.as_deref())?;
    let texts = request.take_texts(settings)?;
    let params = EmbedParams {
        dimensions: request.dimensions,
        policy: settings.dimension_policy,
        ..EmbedParams::with_defaults(request.model.as_deref(), texts)
    };
    let parts = EmbedRequestParts { provider: provider.or(parts.provider), ..parts };
    let EmbedResponse { embeddings, numbers, mut headers } = embed(&parts, params).await?;
    let json = serialize(numbers, move || serde_json::to_vec(&BatchResponse::from(&embeddings))).await?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, json).into_response())
}
