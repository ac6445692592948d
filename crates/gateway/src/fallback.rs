//! Asks another model when one cannot answer, where configuration names it. Vectors of two spaces do not
//! belong in one index, so by default only a model of the same space may step in.

use std::sync::Arc;

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry, SpaceId,
};

use crate::{
    delegate::delegate_embedder, metrics::Metrics, model_registry::ModelRegistry, router::ResolvedModel,
};

/// Who steps in, in order.
#[derive(Clone)]
pub struct FallbackModels {
    /// Opens them, at first need.
    pub opener: Arc<ModelRegistry>,
    /// The models.
    pub models: Vec<ResolvedModel>,
    /// Whether a model of another space may step in.
    pub allow_space_change: bool,
}

/// Falls back.
pub struct Fallback {
    inner: Arc<dyn Embedder>,
    alternatives: FallbackModels,
    metrics: Metrics,
}

impl Fallback {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Embedder>, alternatives: FallbackModels, metrics: &Metrics) -> Self {
        Self { inner, alternatives, metrics: metrics.clone() }
    }

    /// What one of the others answers.
    async fn ask(&self, model: &ResolvedModel, request: &EmbedRequest) -> Result<Embeddings, EmbedError> {
        let other = self.alternatives.opener.open(model).await?;
        let own_space = self.inner.identity().map(|identity| identity.space);
        let wrong = |found: Option<&SpaceId>| {
            !self.alternatives.allow_space_change && (own_space.is_none() || own_space.as_ref() != found)
        };
        let known = other.identity().map(|identity| identity.space);
        if wrong(known.as_ref()) {
            // A local model says its space once it is loaded.
            other.warm_up().await?;
            if wrong(other.identity().map(|identity| identity.space).as_ref()) {
                return Err(self.refused(model));
            }
        }
        other.embed(request.clone()).await
    }

    fn refused(&self, model: &ResolvedModel) -> EmbedError {
        let message = format!(
            "'{}' may not stand in for '{}': its vectors are of another space; allow_space_change would allow it",
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
                answer => return answer,
            };
            for model in &self.alternatives.models {
                match self.ask(model, &request).await {
                    Ok(answer) => {
                        self.metrics.fell_back(self.model().provider, model.provider);
                        tracing::warn!(
                            error = %failure, from = %self.model().name, to = %model.model, "a fallback answered"
                        );
                        return Ok(answer);
                    }
                    Err(error) => tracing::warn!(%error, model = %model.model, "a fallback could not answer"),
                }
            }
            // The first failure is about the model that was asked for; the others would only confuse.
            Err(failure)
        })
    }
}
