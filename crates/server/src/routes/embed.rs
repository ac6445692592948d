//! From a request that was read to vectors and the headers that go with them: the same for every way to ask.

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
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) caller: MeteredCaller,
    pub(super) id: Arc<str>,
    /// The header `x-provider`.
    pub(super) provider: Option<ProviderKind>,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let caller = MeteredCaller::from_request_parts(parts, app).await?;
        let id = parts.extensions.get::<RequestId>().ok_or_else(ApiError::internal)?;
        Ok(Self { app: Arc::clone(app), caller, id: Arc::clone(&id.0), provider: provider(&parts.headers)? })
    }
}

/// What is wanted.
pub(super) struct Wish<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) inputs: Arc<[Input]>,
    pub(super) dimensions: Option<NonZeroUsize>,
    pub(super) policy: DimensionPolicy,
    pub(super) input_type: Option<InputType>,
    pub(super) truncate: Option<Truncate>,
    pub(super) normalize: bool,
    pub(super) partial: bool,
}

impl<'a> Wish<'a> {
    /// Whole vectors of unit length.
    pub(super) fn plain(model: Option<&'a str>, inputs: Arc<[Input]>) -> Self {
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

/// What came of it.
pub(super) struct Answer {
    pub(super) embeddings: Embeddings,
    /// How many numbers its vectors have.
    pub(super) numbers: usize,
    pub(super) headers: HeaderMap,
}

pub(super) async fn embed(call: &Call, wish: Wish<'_>) -> Result<Answer, ApiError> {
    let Call { app, caller, id, provider } = call;
    let context = RequestContext {
        deadline: Some(Instant::now() + app.settings.request_timeout),
        trace: caller.trace,
        ..RequestContext::new(caller.identity.user.shared(), Arc::clone(id))
    };
    let notes = context.stats.clone();
    let Wish { model, inputs, dimensions, policy, input_type, truncate, normalize, partial } = wish;
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

    let mut headers = headers_of(&embeddings);
    if dimensions.is_some() {
        put(&mut headers, "x-embeddings-dimensions-policy", policy.as_str());
    }
    if let Ok(asked) = app.router.resolve(selector)
        && served_by_another(&embeddings, &asked)
    {
        put(&mut headers, "x-embeddings-fallback-from", asked.provider.as_str());
    }
    noted(&mut headers, &notes, elapsed);
    Ok(Answer { numbers: embeddings.data.len(), embeddings, headers })
}

fn served_by_another(embeddings: &Embeddings, asked: &ResolvedModel) -> bool {
    let card = &embeddings.served_by;
    card.provider != asked.provider || card.name != asked.model.name
}

/// The header that names who serves the model.
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

/// What wrappers have noted on the way.
fn noted(headers: &mut HeaderMap, notes: &RequestStats, elapsed: std::time::Duration) {
    if let Some(variant) = notes.variant() {
        put(headers, "x-embeddings-variant", variant);
    }
    if let Some((hits, misses)) = notes.cache() {
        put(headers, "x-embeddings-cache", &format!("hits={hits},misses={misses}"));
    }
    let mut timing = format!("embed;dur={:.2}", elapsed.as_secs_f64() * 1e3);
    let (attempts, upstream) = notes.upstream();
    if attempts > 0 {
        timing +=
            &format!(", provider;dur={:.2};desc=\"attempts: {attempts}\"", upstream.as_secs_f64() * 1e3);
    }
    put(headers, "server-timing", &timing);
}

/// A header whose value may come from outside; one that no header can carry is left out.
fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Numbers beyond which writing the answer takes milliseconds and moves to a thread that may block.
const INLINE_NUMBERS: usize = 32 << 10;

/// An answer of so many numbers as JSON.
pub(super) async fn written(
    numbers: usize,
    write: impl FnOnce() -> Result<Vec<u8>, serde_json::Error> + Send + 'static,
) -> Result<Vec<u8>, ApiError> {
    let json = if numbers <= INLINE_NUMBERS {
        write()
    } else {
        tokio::task::spawn_blocking(write).await.map_err(|_| ApiError::internal())?
    };
    json.map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ApiError::internal()
    })
}
