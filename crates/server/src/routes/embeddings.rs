//! `POST /v1/embeddings` and `POST /api/v1/embeddings`: the main job.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use embeddery_core::DimensionPolicy;

use super::embed::{Call, Wish, embed, written};
use crate::{
    body::JsonObject,
    error::{ApiError, ErrorBody},
    wire::{
        answer::{EmbeddingsAnswer, write},
        embeddings::{EmbeddingsRequest, OnError},
    },
};

/// Text to vectors.
///
/// Texts longer than the model reads are cut, as sentence-transformers does, unless `truncate` says otherwise;
/// the header `X-Embeddings-Truncated` then says how many. With `dimensions`, a model that was not trained to
/// give them is treated as the server's dimension policy says.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings",
    tag = "embeddings",
    params(("x-provider" = Option<String>, Header, description = "Who serves the model, where its name does not say")),
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vectors", body = EmbeddingsAnswer,
            headers(
                ("X-Embeddings-Model" = String, description = "The provider's name for the model that answered"),
                ("X-Embeddings-Provider" = String, description = "Who answered"),
                ("X-Embeddings-Space" = String, description = "Vectors of equal spaces may be compared"),
                ("X-Embeddings-Truncated" = u64, description = "How many texts were cut; absent when none"),
                ("X-Embeddings-Dimensions-Policy" = String, description = "How `dimensions` was treated"),
                ("X-Embeddings-Variant" = String, description = "What made the numbers: space, precision, purpose, length"),
                ("X-Embeddings-Fallback-From" = String, description = "Who was asked, when another model answered"),
                ("X-Embeddings-Cache" = String, description = "hits=a,misses=b: texts found in the cache and not"),
                ("Server-Timing" = String, description = "Milliseconds in all, and of them at the provider"),
                ("X-RateLimit-Limit" = u64, description = "Requests that may come at once; absent when not limited"),
                ("X-RateLimit-Remaining" = u64, description = "Requests that may still come at once"),
                ("X-RateLimit-Reset" = u64, description = "Seconds until all of them may come again"),
            )),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "Nobody serves this model", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 429, description = "A rate or a quota is used up, or too much work is waiting; come back after Retry-After", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 503, description = "The model is on its way here, or cannot be used", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create(call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let policy = call.app.settings.dimension_policy;
    answer(&call, policy, body).await
}

/// Text to vectors, as OpenAI's API does it.
///
/// As `POST /api/v1/embeddings`, but `dimensions` that the model was not trained to give are refused, and a body
/// that does not fit the schema is a 400.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "openai",
    params(("x-provider" = Option<String>, Header, description = "Who serves the model, where its name does not say")),
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vectors, with the headers of /api/v1/embeddings", body = EmbeddingsAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "Nobody serves this model", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 429, description = "A rate or a quota is used up, or too much work is waiting; come back after Retry-After", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 503, description = "The model is on its way here, or cannot be used", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_openai(call: Call, body: JsonObject) -> Result<Response, ApiError> {
    answer(&call, DimensionPolicy::Strict, body).await
}

async fn answer(call: &Call, policy: DimensionPolicy, body: JsonObject) -> Result<Response, ApiError> {
    let asked = EmbeddingsRequest::read(body.0, &call.app.settings)?;
    let form = asked.form();
    let wish = Wish {
        model: asked.model.as_deref(),
        inputs: asked.input,
        dimensions: asked.dimensions,
        policy,
        input_type: asked.input_type,
        truncate: asked.truncate,
        normalize: asked.normalize,
        partial: asked.on_error == OnError::Partial,
    };
    let mut answer = embed(call, wish).await?;
    answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = asked.model.unwrap_or_else(|| call.app.router.default_model());
    let (embeddings, numbers) = (answer.embeddings, answer.numbers);
    let json = written(numbers, move || write(embeddings, &name, form)).await?;
    Ok((answer.headers, json).into_response())
}
