//! Uses the configured fallback models when a model fails. Vectors of two spaces must not be mixed in one index, so by
//! default only a model of the same space is used.
//!
//! The time until the deadline is divided equally among the models that are left to try, so that the retries of a model
//! whose server hangs leave time for the next model. What a model does not use is left to the next ones.

use std::{sync::Arc, time::Duration};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, ProviderKind, Retry, SpaceId,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    delegate::delegate_embedder, metrics::Metrics, model_registry::ModelRegistry, router::ResolvedModel,
};

/// The fallback models of one model, in the order in which they are tried.
#[derive(Clone)]
pub struct FallbackModels {
    /// Opens the fallback models on first use.
    pub registry: Arc<ModelRegistry>,
    /// The fallback models.
    pub models: Vec<ResolvedModel>,
    /// Whether a model of another space may be used.
    pub allow_space_change: bool,
}

/// Minimum time of a model, if the deadline allows it. A call to a server takes at least about this long.
const MIN_SHARE: Duration = Duration::from_millis(100);

/// Uses a fallback model when the wrapped model fails.
pub struct Fallback {
    inner: Arc<dyn Embedder>,
    fallbacks: FallbackModels,
    metrics: Metrics,
}

impl Fallback {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Embedder>, fallbacks: FallbackModels, metrics: &Metrics) -> Self {
        Self { inner, fallbacks, metrics: metrics.clone() }
    }

    /// Embeds with the requested model. `models` is the number of models that are left to try.
    ///
    /// A local model gets all the time: it fails at once or computes, and has no server that could hang.
    async fn embed_requested(&self, request: EmbedRequest, models: u32) -> Result<Embeddings, EmbedError> {
        match self.model().provider {
            ProviderKind::HuggingFace | ProviderKind::Onnx => self.inner.embed(request).await,
            _ => within_share(&self.model().name, request, models, |request| self.inner.embed(request)).await,
        }
    }

    /// Embeds with a fallback model, if its space is allowed.
    async fn embed_with(
        &self,
        model: &ResolvedModel,
        request: EmbedRequest,
    ) -> Result<Embeddings, EmbedError> {
        let fallback = self.fallbacks.registry.open(model).await?;
        let own_space = self.inner.identity().map(|identity| identity.space);
        let is_excluded = |space: Option<&SpaceId>| {
            !self.fallbacks.allow_space_change && (own_space.is_none() || own_space.as_ref() != space)
        };
        let space = fallback.identity().map(|identity| identity.space);
        if is_excluded(space.as_ref()) {
            // The space of a local model is known once the model is loaded.
            fallback.warm_up().await?;
            if is_excluded(fallback.identity().map(|identity| identity.space).as_ref()) {
                return Err(self.space_mismatch(model));
            }
        }
        fallback.embed(request).await
    }

    fn space_mismatch(&self, model: &ResolvedModel) -> EmbedError {
        let message = format!(
            "'{}' cannot be a fallback of '{}': its vectors are of another space; set allow_space_change to allow it",
            model.model,
            self.model().name
        );
        EmbedError::new(ErrorKind::Unavailable, Fault::Us, Retry::Never, message)
    }
}

impl Embedder for Fallback {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut left = self.fallbacks.models.len() as u32 + 1;
            let failure = match self.embed_requested(request.clone(), left).await {
                Err(error) if error.fault != Fault::Caller => error,
                result => return result,
            };
            for model in &self.fallbacks.models {
                left -= 1;
                let embed = |request| self.embed_with(model, request);
                match within_share(&model.model.name, request.clone(), left, embed).await {
                    Ok(response) => {
                        self.metrics.record_fallback(self.model().provider, model.provider);
                        tracing::warn!(
                            error = %failure, from = %self.model().name, to = %model.model, "fallback model used"
                        );
                        return Ok(response);
                    }
                    Err(error) => tracing::warn!(%error, model = %model.model, "fallback model failed"),
                }
            }
            // The caller sees the error of the requested model, not those of its fallbacks.
            Err(failure)
        })
    }
}

/// Runs `embed` with an equal share of the time until the deadline. `models` is the number of models that share it.
async fn within_share<F: Future<Output = Result<Embeddings, EmbedError>>>(
    name: &str,
    mut request: EmbedRequest,
    models: u32,
    embed: impl FnOnce(EmbedRequest) -> F,
) -> Result<Embeddings, EmbedError> {
    let Some(deadline) = request.context.deadline.map(Instant::from) else { return embed(request).await };
    let share = share(deadline, Instant::now(), models);
    // The wrappers of a call see the end of the share as the deadline: no retry starts after it, and an attempt that
    // hangs until then counts as a failure of the server.
    request.context.deadline = Some(share.into_std());
    timeout_at(share, embed(request)).await.unwrap_or_else(|_| {
        Err(EmbedError::timeout(format!(
            "'{name}' did not respond within its share of the time; raise EMBEDDINGS_REQUEST_TIMEOUT"
        )))
    })
}

/// The end of the next model's share.
fn share(deadline: Instant, now: Instant, models: u32) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + (left / models.max(1)).max(MIN_SHARE).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_divided_equally_and_never_exceeded() {
        let now = Instant::now();
        let shares = |left_ms: u64, models| {
            let left = Duration::from_millis(left_ms);
            (share(now + left, now, models) - now).as_millis()
        };
        assert_eq!([shares(30_000, 3), shares(20_000, 2), shares(10_000, 1)], [10_000; 3]);
        assert_eq!([shares(150, 3), shares(60, 2), shares(0, 2)], [100, 60, 0], "a share has a minimum");
        assert_eq!(
            share(now, now + Duration::from_secs(1), 2),
            now + Duration::from_secs(1),
            "the deadline has passed"
        );
    }
}
