//! One local model as an [`Embedder`]: known from its configuration files at once, in memory while it is used.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, Identity, Limits, ModelCard, ModelState,
    ProviderKind, TokenCount,
};
use tokio::sync::Semaphore;

use super::{
    ModelOptions,
    backend::OnDisk,
    reading,
    slot::{Slot, SlotSettings},
};

/// One model directory.
pub(super) struct LocalModel {
    card: Arc<ModelCard>,
    limits: Limits,
    slot: Arc<Slot>,
    tokenizing: Arc<Semaphore>,
}

impl LocalModel {
    pub(super) fn new(
        (provider, name): (ProviderKind, Arc<str>),
        files: Box<dyn OnDisk>,
        options: ModelOptions,
        (settings, tokenizing): (SlotSettings, Arc<Semaphore>),
    ) -> Self {
        let facts = files.facts();
        let card = ModelCard {
            name: Arc::clone(&name),
            provider,
            dimensions: NonZeroUsize::new(facts.dimensions),
            max_tokens: NonZeroUsize::new(facts.max_tokens),
            matryoshka: options.matryoshka,
        };
        let slot = Slot::new(name, files, options.prompts, settings);
        Self { card: Arc::new(card), limits: Limits::default(), slot, tokenizing }
    }

    pub(super) fn state(&self) -> ModelState {
        self.slot.model_state()
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Embedder for LocalModel {
    fn model(&self) -> &Arc<ModelCard> {
        &self.card
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn count(&self, text: &str) -> TokenCount {
        let exact = self.slot.lease_now().and_then(|lease| lease.backend().count(text).ok());
        // Before the model is loaded: WordPiece makes about one token of four bytes of English.
        exact.map_or(TokenCount::Estimate(text.len() / 4 + 2), TokenCount::Exact)
    }

    fn identity(&self) -> Option<Identity> {
        self.slot.identity()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let lease = Arc::new(self.slot.lease().await?);
            let (normalize, priority) = (request.normalize, request.context.priority);
            let tokens = reading::tokenize(&self.slot, Arc::clone(&lease), &self.tokenizing, request).await?;
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
