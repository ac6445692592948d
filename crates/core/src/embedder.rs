//! Who answers. Every provider's adapter and every wrapper of the gateway implements [`Embedder`].

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    CallLimits, EmbedError, EmbedRequest, EmbeddingIdentity, Embeddings, ModelDescription, ModelInfo,
    ModelRef, ModelState, ModelStatus, ProviderKind, SpaceId, TokenCount,
};

/// A future behind a pointer, so that the traits below are object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One model, ready to turn text into vectors.
pub trait Embedder: Send + Sync {
    /// What is known of the model.
    fn model(&self) -> &Arc<ModelInfo>;

    /// What one call may carry.
    fn limits(&self) -> &CallLimits;

    /// How many tokens the model would read for `text`, special tokens included, before truncation.
    fn count_tokens(&self, text: &str) -> TokenCount;

    /// Which vectors its own are, as far as that is known by now: `None` for a local model that is not loaded.
    fn identity(&self) -> Option<EmbeddingIdentity> {
        let card = self.model();
        Some(EmbeddingIdentity {
            space: SpaceId::new(format!("{}:{}", card.provider, card.name)),
            precision: None,
        })
    }

    /// Embeds a batch. Dropping the future cancels the work that has not begun.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>>;

    /// Makes sure that the next request does not wait for a model to load.
    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A family of models behind one name (`huggingface`, `openai`), each opened on demand.
pub trait Provider: Send + Sync {
    /// Which provider this is.
    fn kind(&self) -> ProviderKind;

    /// The model's embedder. Cheap when the model is known; fails with
    /// [`ModelLoading`](crate::ErrorKind::ModelLoading) while the model is on its way to this machine.
    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>>;

    /// Brings a model to this machine and returns when it is there. Nothing to do for a vendor.
    fn download<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>>;

    /// Lets a model go that is in memory; says whether it was. Requests under way are answered. Nothing to do for a
    /// vendor.
    fn unload<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<bool, EmbedError>> {
        let _ = model;
        Box::pin(async { Ok(false) })
    }

    /// What is known of a model on this machine without loading it; `None` when it is not here, and of vendors' models.
    fn describe<'a>(
        &'a self,
        model: &'a ModelRef,
    ) -> BoxFuture<'a, Result<Option<ModelDescription>, EmbedError>> {
        let _ = model;
        Box::pin(async { Ok(None) })
    }

    /// Where one model stands; `None` where models have no life of their own (vendors). May read the disk,
    /// never the network.
    fn state(&self, model: &ModelRef) -> Option<ModelState>;

    /// The models this provider knows of, sorted by name.
    fn models(&self) -> Vec<ModelStatus>;
}
