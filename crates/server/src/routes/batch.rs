//! `POST /api/v1/embeddings/batch`: texts to vectors, in the replaced service's form.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};

use super::embed::{Call, Wish, embed, written};
use crate::{
    body::JsonObject,
    error::{ApiError, ErrorBody},
    wire::batch::{BatchAnswer, BatchRequest},
};

/// Texts to vectors, in a plain form.
///
/// What `POST /api/v1/embeddings` does, with its defaults; calls to a provider are as large as it allows.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/batch",
    tag = "embeddings",
    request_body = BatchRequest,
    responses(
        (status = 200, description = "The vectors, with the headers of /api/v1/embeddings", body = BatchAnswer),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The allow-list does not have this model", body = ErrorBody),
        (status = 404, description = "Nobody serves this model", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as JSON", body = ErrorBody),
        (status = 422, description = "The body does not fit the schema", body = ErrorBody),
        (status = 429, description = "Too much work is waiting; come back after Retry-After", body = ErrorBody),
        (status = 500, description = "A defect of the server", body = ErrorBody),
        (status = 502, description = "The upstream answered nonsense", body = ErrorBody),
        (status = 503, description = "The model is on its way here, or cannot be used", body = ErrorBody),
        (status = 504, description = "The answer would have come too late", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(super) async fn create_batch(call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let asked = BatchRequest::read(body.0, &call.app.settings)?;
    let policy = call.app.settings.dimension_policy;
    let call = Call { provider: asked.provider.or(call.provider), ..call };
    let wish =
        Wish { dimensions: asked.dimensions, policy, ..Wish::plain(asked.model.as_deref(), asked.texts) };
    let answer = embed(&call, wish).await?;
    let (embeddings, numbers) = (answer.embeddings, answer.numbers);
    let json = written(numbers, move || serde_json::to_vec(&BatchAnswer::of(&embeddings))).await?;
    let mut headers = answer.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, json).into_response())
}
