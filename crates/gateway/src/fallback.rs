//! Uses the configured fallback models when a model fails. Vectors of two spaces must not be mixed in one index, so by
//! default only a model of the same space is used.

use std::sync::Arc;

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry, SpaceId,
};

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

    /// Embeds with a fallback model, if its space is allowed.
    async fn embed_with(
        &self,
        model: &ResolvedModel,
        request: &EmbedRequest,
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
        fallback.embed(request.clone()).await
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
            let failure = match self.inner.embed(request.clone()).await {
                Err(error) if error.fault != Fault::Caller => error,
                result => return result,
            };
            for model in &self.fallbacks.models {
                match self.embed_with(model, &request).await {
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
