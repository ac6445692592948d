//! Embeds the inputs of a request, and makes the headers of its response: the same for every embeddings route.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use embeddery_accounts::MeteredResponse;
use embeddery_core::{
    DimensionPolicy, EmbedRequest, Embeddings, Input, InputType, ProviderKind, RequestContext, RequestStats,
    Truncate,
};
use embeddery_gateway::{ModelSelector, ResolvedModel};

use crate::{App, error::ApiError, metering::MeteredCaller, request_id::RequestId};

/// A request without its body.
pub(super) struct EmbedRequestParts {
    pub(super) app: Arc<App>,
    pub(super) caller: MeteredCaller,
    pub(super) id: Arc<str>,
    /// The header `x-provider`.
    pub(super) provider: Option<ProviderKind>,
}

impl FromRequestParts<Arc<App>> for EmbedRequestParts {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let caller = MeteredCaller::from_request_parts(parts, app).await?;
        let id = parts.extensions.get::<RequestId>().ok_or_else(ApiError::internal)?;
        Ok(Self { app: Arc::clone(app), caller, id: Arc::clone(&id.0), provider: provider(&parts.headers)? })
    }
}

/// What to embed, and how.
pub(super) struct EmbedParams<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) inputs: Arc<[Input]>,
    pub(super) dimensions: Option<NonZeroUsize>,
    pub(super) policy: DimensionPolicy,
    pub(super) input_type: Option<InputType>,
    pub(super) truncate: Option<Truncate>,
    pub(super) normalize: bool,
    pub(super) partial: bool,
}

impl<'a> EmbedParams<'a> {
    /// Vectors of the model's own length, scaled to unit length.
    pub(super) fn with_defaults(model: Option<&'a str>, inputs: Arc<[Input]>) -> Self {
        Self {
            model,
            inputs,
            dimensions: None,
            policy: DimensionPolicy::Strict,
            input_type: None,
            truncate: None,
            normalize: true,
            partial: false,
        }
    }
}

/// The vectors and the headers of the response.
pub(super) struct EmbedResponse {
    pub(super) embeddings: Embeddings,
    /// The length of all vectors together.
    pub(super) numbers: usize,
    pub(super) headers: HeaderMap,
}

pub(super) async fn embed(
    parts: &EmbedRequestParts,
    params: EmbedParams<'_>,
) -> Result<EmbedResponse, ApiError> {
    let EmbedRequestParts { app, caller, id, provider } = parts;
    let context = RequestContext {
        deadline: Some(Instant::now() + app.settings.request_timeout),
        trace: caller.trace,
        ..RequestContext::new(caller.identity.user.shared(), Arc::clone(id))
    };
    let notes = context.stats.clone();
    let EmbedParams { model, inputs, dimensions, policy, input_type, truncate, normalize, partial } = params;
    let selector = ModelSelector { model, provider: *provider };
    let request = EmbedRequest {
        dimensions,
        dimension_policy: policy,
        input_type,
        truncate,
        normalize,
        partial,
        ..EmbedRequest::with_defaults(inputs, context)
    };
    let MeteredResponse { embeddings, elapsed, .. } = caller.embed(app, selector, request).await?;

    let mut headers = model_headers(&embeddings);
    if dimensions.is_some() {
        insert_header(&mut headers, "x-embeddings-dimensions-policy", policy.as_str());
    }
    if let Ok(resolved) = app.router.resolve(selector)
        && served_by_another(&embeddings, &resolved)
    {
        insert_header(&mut headers, "x-embeddings-fallback-from", resolved.provider.as_str());
    }
    add_stats_headers(&mut headers, &notes, elapsed);
    Ok(EmbedResponse { numbers: embeddings.data.len(), embeddings, headers })
}

fn served_by_another(embeddings: &Embeddings, resolved: &ResolvedModel) -> bool {
    let card = &embeddings.served_by;
    card.provider != resolved.provider || card.name != resolved.model.name
}

/// The header `x-provider`.
fn provider(headers: &HeaderMap) -> Result<Option<ProviderKind>, ApiError> {
    let Some(value) = headers.get("x-provider") else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes());
    name.trim().parse().map(Some).map_err(|error: String| ApiError::invalid("x-provider", error))
}

fn model_headers(embeddings: &Embeddings) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert_header(&mut headers, "x-embeddings-model", &embeddings.served_by.name);
    insert_header(&mut headers, "x-embeddings-provider", embeddings.served_by.provider.as_str());
    insert_header(&mut headers, "x-embeddings-space", embeddings.space.as_str());
    headers
}

/// Headers of what the wrappers have recorded.
fn add_stats_headers(headers: &mut HeaderMap, notes: &RequestStats, elapsed: std::time::Duration) {
    if let Some(variant) = notes.variant() {
        insert_header(headers, "x-embeddings-variant", variant);
    }
    if let Some((hits, misses)) = notes.cache() {
        insert_header(headers, "x-embeddings-cache", &format!("hits={hits},misses={misses}"));
    }
    let mut timing = format!("embed;dur={:.2}", elapsed.as_secs_f64() * 1e3);
    let (attempts, upstream) = notes.upstream();
    if attempts > 0 {
        timing +=
            &format!(", provider;dur={:.2};desc=\"attempts: {attempts}\"", upstream.as_secs_f64() * 1e3);
    }
    insert_header(headers, "server-timing", &timing);
}

/// Adds a header, unless its value is invalid in one: some values come from providers.
fn insert_header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A larger response is serialized on a blocking thread, because it takes milliseconds.
const MAX_INLINE_NUMBERS: usize = 32 << 10;

/// The JSON of a response with this many numbers.
pub(super) async fn serialize(
    numbers: usize,
    write: impl FnOnce() -> Result<Vec<u8>, serde_json::Error> + Send + 'static,
) -> Result<Vec<u8>, ApiError> {
    let json = if numbers <= MAX_INLINE_NUMBERS {
        write()
    } else {
        tokio::task::spawn_blocking(write).await.map_err(|_| ApiError::internal())?
    };
    json.map_err(|error| {
        tracing::error!(%error, "a response could not be serialized");
        ApiError::internal()
    })
}
