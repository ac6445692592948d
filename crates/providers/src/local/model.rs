//! One local model as an [`Embedder`]: known from its configuration files at once, in memory while it is used.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, ModelInfo,
    ModelState, ProviderKind, SPECIAL_TOKENS, TokenCount, estimate_tokens,
};
use tokio::sync::Semaphore;

use super::{
    ModelOptions,
    backend::ModelOnDisk,
    model_instance::{ModelInstance, SlotSettings},
    tokenize,
};

/// One model directory.
pub(super) struct LocalModel {
    card: Arc<ModelInfo>,
    limits: CallLimits,
    slot: Arc<ModelInstance>,
    tokenizing: Arc<Semaphore>,
}

impl LocalModel {
    pub(super) fn new(
        (provider, name): (ProviderKind, Arc<str>),
        files: Box<dyn ModelOnDisk>,
        options: ModelOptions,
        (settings, tokenizing): (SlotSettings, Arc<Semaphore>),
    ) -> Self {
        let facts = files.facts();
        let card = ModelInfo {
            name: Arc::clone(&name),
            provider,
            dimensions: NonZeroUsize::new(facts.dimensions),
            max_tokens: NonZeroUsize::new(facts.max_tokens),
            matryoshka: options.matryoshka,
        };
        let slot = ModelInstance::new(name, files, options.prompts, settings);
        Self { card: Arc::new(card), limits: CallLimits::default(), slot, tokenizing }
    }

    pub(super) fn state(&self) -> ModelState {
        self.slot.model_state()
    }

    pub(super) fn slot(&self) -> &Arc<ModelInstance> {
        &self.slot
    }
}

impl Embedder for LocalModel {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.card
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        let exact = self.slot.lease_now().and_then(|lease| lease.backend().count(text).ok());
        // Only a loaded model has a tokenizer.
        exact.map_or_else(|| TokenCount::Estimate(estimate_tokens(text) + SPECIAL_TOKENS), TokenCount::Exact)
    }

    fn identity(&self) -> Option<EmbeddingIdentity> {
        self.slot.identity()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let lease = Arc::new(self.slot.lease().await?);
            let (normalize, priority) = (request.normalize, request.context.priority);
            let tokens =
                tokenize::tokenize(&self.slot, Arc::clone(&lease), &self.tokenizing, request).await?;
            let counts =
                tokens.iter().map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX)).collect();
            let truncated = tokens.iter().filter(|tokens| tokens.truncated()).count();
            let mut data = lease.queue.submit(tokens, priority)?.await?;
            let dim = self.slot.files.facts().dimensions;
            if normalize {
                data.chunks_exact_mut(dim).for_each(embeddery_engine::normalize);
            }
            Ok(Embeddings {
                data,
                dim,
                space: lease.space.clone(),
                tokens: counts,
                billed_tokens: 0,
                truncated,
                failed: Vec::new(),
                served_by: Arc::clone(&self.card),
            })
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async move { self.slot.lease().await.map(drop) })
    }
}
