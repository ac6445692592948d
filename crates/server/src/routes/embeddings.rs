//! `POST /v1/embeddings` and `POST /api/v1/embeddings`.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use embeddery_core::DimensionPolicy;

use super::{
    common_errors::ModelErrors,
    embed_request::{EmbedParams, EmbedRequestParts, embed, serialize},
};
use crate::{
    body::JsonBody,
    error::ApiError,
    wire::{
        embeddings::{EmbeddingsRequest, OnError},
        embeddings_response::{EmbeddingsResponse, to_json},
    },
};

/// Create embeddings.
///
/// Texts longer than the model reads are truncated, as sentence-transformers does, unless `truncate` says otherwise;
/// the header `X-Embeddings-Truncated` has their number. `dimensions` that the model was not trained for follow the
/// server's dimension policy.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings",
    tag = "embeddings",
    params(("x-provider" = Option<String>, Header, description = "The model's provider, where its name does not determine it")),
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vectors", body = EmbeddingsResponse,
            headers(
                ("X-Embeddings-Model" = String, description = "The provider's name for the model that made the vectors"),
                ("X-Embeddings-Provider" = String, description = "The provider of the model that made the vectors"),
                ("X-Embeddings-Space" = String, description = "Vectors of equal spaces may be compared"),
                ("X-Embeddings-Truncated" = u64, description = "How many texts were truncated; absent when none"),
                ("X-Embeddings-Dimensions-Policy" = String, description = "The policy that `dimensions` followed"),
                ("X-Embeddings-Variant" = String, description = "What determines the numbers: space, precision, purpose, length"),
                ("X-Embeddings-Fallback-From" = String, description = "The provider that was requested, when another model made the vectors"),
                ("X-Embeddings-Cache" = String, description = "hits=a,misses=b: texts found in the cache and not"),
                ("Server-Timing" = String, description = "Milliseconds in total and at the provider"),
                ("X-RateLimit-Limit" = u64, description = "The maximum burst of requests; absent when not limited"),
                ("X-RateLimit-Remaining" = u64, description = "Requests left of the burst"),
                ("X-RateLimit-Reset" = u64, description = "Seconds until the whole burst is available again"),
            )),
        ModelErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_embeddings(
    parts: EmbedRequestParts,
    JsonBody(request): JsonBody<EmbeddingsRequest>,
) -> Result<Response, ApiError> {
    let policy = parts.app.settings.dimension_policy;
    respond(&parts, policy, request).await
}

/// Create embeddings, compatible with OpenAI's API.
///
/// As `POST /api/v1/embeddings`, but `dimensions` that the model was not trained for are rejected, and a body that
/// does not fit the schema is a 400.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "openai",
    params(("x-provider" = Option<String>, Header, description = "The model's provider, where its name does not determine it")),
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vectors, with the headers of /api/v1/embeddings", body = EmbeddingsResponse),
        ModelErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_embeddings_openai(
    parts: EmbedRequestParts,
    JsonBody(request): JsonBody<EmbeddingsRequest>,
) -> Result<Response, ApiError> {
    respond(&parts, DimensionPolicy::Strict, request).await
}

async fn respond(
    parts: &EmbedRequestParts,
    policy: DimensionPolicy,
    request: EmbeddingsRequest,
) -> Result<Response, ApiError> {
    let app = &parts.app;
    let encoding = request.encoding()?;
    let normalize = request.normalize();
    let params = EmbedParams {
        model: request.model.as_deref(),
        inputs: request.input.check(&app.settings)?,
        dimensions: request.dimensions,
        policy,
        input_type: request.input_type.map(Into::into),
        truncate: request.truncate.map(Into::into),
        normalize,
        partial: request.on_error == Some(OnError::Partial),
    };
    let mut response = embed(parts, params).await?;
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = request.model.unwrap_or_else(|| app.router.default_model());
    let (embeddings, numbers) = (response.embeddings, response.numbers);
    let json = serialize(numbers, move || to_json(embeddings, &name, encoding)).await?;
    Ok((response.headers, json).into_response())
}
