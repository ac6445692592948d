//! `POST /v1/embeddings` and `POST /api/v1/embeddings`: the main job.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse as _, Response},
};
use embeddery_accounts::Role;
use embeddery_core::{Context, DimensionPolicy, EmbedRequest, Embeddings, ProviderKind};
use embeddery_gateway::Selector;

use crate::{
    App,
    access_log::Logged,
    accounting::{Metered, spent},
    body::JsonObject,
    error::{ApiError, ErrorBody},
    request_id::RequestId,
    wire::embeddings::{EmbeddingsAnswer, EmbeddingsRequest, write},
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
                ("X-RateLimit-Limit" = u64, description = "Requests that may come at once; absent when not limited"),
                ("X-RateLimit-Remaining" = u64, description = "Requests that may still come at once"),
                ("X-RateLimit-Reset" = u64, description = "Seconds until all of them may come again"),
            )),
        (status = 400, description = "A value that cannot be used, or no JSON", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
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
    embed(call, policy, body).await
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
    embed(call, DimensionPolicy::Strict, body).await
}

/// A request without its body.
pub(super) struct Call {
    app: Arc<App>,
    caller: Metered,
    id: Arc<str>,
    provider: Option<ProviderKind>,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let caller = Metered::from_request_parts(parts, app).await?;
        let id = parts.extensions.get::<RequestId>().ok_or_else(ApiError::internal)?;
        Ok(Self { app: Arc::clone(app), caller, id: Arc::clone(&id.0), provider: provider(&parts.headers)? })
    }
}

async fn embed(call: Call, policy: DimensionPolicy, body: JsonObject) -> Result<Response, ApiError> {
    let Call { app, caller, id, provider } = call;
    let asked = EmbeddingsRequest::read(body.0, &app.settings)?;
    let context = Context {
        deadline: Some(Instant::now() + app.settings.request_timeout),
        ..Context::new(caller.identity.user.shared(), id)
    };
    let request = EmbedRequest {
        dimensions: asked.dimensions,
        dimension_policy: policy,
        truncate: asked.truncate,
        normalize: asked.normalize,
        ..EmbedRequest::plain(Arc::clone(&asked.input), context)
    };
    let selector = Selector { model: asked.model.as_deref(), provider };
    // One user's wish must not fill everybody's disk.
    if app.accounts.auth.is_multi_user()
        && caller.identity.role != Role::Admin
        && !app.router.is_at_hand(selector)
    {
        return Err(ApiError::not_fetched_for_users(asked.model.as_deref().unwrap_or_default()));
    }
    // Dropped without being settled, by a failure or by a caller who hangs up, it gives the tokens back.
    let reservation = caller.reserve(&app, &asked.input).await?;
    let began = Instant::now();
    let embeddings = app.router.embed(selector, request).await?;
    let embedded = began.elapsed();
    reservation.settle(spent(&embeddings)).await;

    let logged = Logged {
        model: embeddings.served_by.name.to_string(),
        inputs: asked.input.len(),
        tokens: embeddings.total_tokens(),
    };
    let mut headers = headers_of(&embeddings);
    if asked.dimensions.is_some() {
        headers.insert(
            HeaderName::from_static("x-embeddings-dimensions-policy"),
            HeaderValue::from_static(policy.as_str()),
        );
    }
    let timing = format!("embed;dur={:.2}", embedded.as_secs_f64() * 1e3);
    put(&mut headers, "server-timing", &timing);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = asked.model.unwrap_or_else(|| app.router.default_model().to_owned());
    let json = written(embeddings, name, asked.encoding_format).await?;
    Ok((headers, Extension(logged), json).into_response())
}

/// Numbers beyond which writing the answer takes milliseconds and moves to a thread that may block.
const INLINE_NUMBERS: usize = 32 << 10;

async fn written(
    embeddings: Embeddings,
    model: String,
    encoding: crate::wire::embeddings::Encoding,
) -> Result<Vec<u8>, ApiError> {
    let json = if embeddings.data.len() <= INLINE_NUMBERS {
        write(&embeddings, &model, encoding)
    } else {
        let task = tokio::task::spawn_blocking(move || write(&embeddings, &model, encoding));
        task.await.map_err(|_| ApiError::internal())?
    };
    json.map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ApiError::internal()
    })
}

fn provider(headers: &HeaderMap) -> Result<Option<ProviderKind>, ApiError> {
    let Some(value) = headers.get("x-provider") else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes());
    name.trim().parse().map(Some).map_err(|error: String| ApiError::invalid("x-provider", error))
}

fn headers_of(embeddings: &Embeddings) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, "x-embeddings-model", &embeddings.served_by.name);
    put(&mut headers, "x-embeddings-provider", embeddings.served_by.provider.as_str());
    put(&mut headers, "x-embeddings-space", embeddings.space.as_str());
    if embeddings.truncated > 0 {
        put(&mut headers, "x-embeddings-truncated", &embeddings.truncated.to_string());
    }
    headers
}

/// A header whose value may come from outside; one that no header can carry is left out.
fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
