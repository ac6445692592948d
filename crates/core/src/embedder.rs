//! The traits of embedding: [`Embedder`] is one model, [`Provider`] is a family of models. Every provider adapter
//! and every wrapper of the gateway implements [`Embedder`].

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    CallLimits, EmbedError, EmbedRequest, EmbeddingIdentity, Embeddings, EstimatedTokens, ModelDescription,
    ModelInfo, ModelRef, ModelState, ModelStatus, ProviderKind, SpaceId, TokenCount, TokenCounter,
    UpstreamServer,
};

/// A boxed future. The traits below return it so that they are object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One model that is ready to turn text into vectors.
pub trait Embedder: Send + Sync {
    /// The model's name, provider and dimensions.
    fn model(&self) -> &Arc<ModelInfo>;

    /// The limits of one call.
    fn limits(&self) -> &CallLimits;

    /// The number of tokens of `text`, with special tokens and before truncation.
    fn count_tokens(&self, text: &str) -> TokenCount;

    /// The server that the model's calls go to.
    fn server(&self) -> UpstreamServer {
        UpstreamServer::in_process(self.model().provider)
    }

    /// Counts the tokens of documents before they are split. A local model is loaded first, because only a loaded model
    /// has its tokenizer.
    fn token_counter(&self) -> BoxFuture<'_, Result<Arc<dyn TokenCounter>, EmbedError>> {
        Box::pin(async { Ok(Arc::new(EstimatedTokens::default()) as Arc<dyn TokenCounter>) })
    }

    /// The space and precision of the model's vectors; `None` for a local model that has not been loaded yet.
    fn identity(&self) -> Option<EmbeddingIdentity> {
        let model = self.model();
        Some(EmbeddingIdentity {
            space: SpaceId::new(format!("{}:{}", model.provider, model.name)),
            precision: None,
        })
    }

    /// Embeds a batch. Dropping the future cancels the work that has not started.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>>;

    /// Loads the model, so that the next request does not wait for it.
    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A family of models under one name (`huggingface`, `openai`). Each model is opened on demand.
pub trait Provider: Send + Sync {
    /// The provider's kind, which is also its name.
    fn kind(&self) -> ProviderKind;

    /// Opens a model. Cheap for a model that is already open. Fails with
    /// [`ModelLoading`](crate::ErrorKind::ModelLoading) while the model is being downloaded.
    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>>;

    /// The server that calls of a model go to; without a model, the server of models that have no settings of their own.
    /// `None` for models of this process, and for a model without a URL.
    fn server(&self, model: Option<&ModelRef>) -> Option<UpstreamServer> {
        let _ = model;
        None
    }

    /// Downloads a model to this machine and returns when it is complete. Does nothing for a vendor's model.
    fn download<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>>;

    /// Removes a model from memory and returns whether it was loaded. Requests in progress still complete. Does nothing
    /// for a vendor's model.
    fn unload<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<bool, EmbedError>> {
        let _ = model;
        Box::pin(async { Ok(false) })
    }

    /// Describes a model from its files, without loading it. `None` for a model that is not on this machine and for a
    /// vendor's model.
    fn describe<'a>(
        &'a self,
        model: &'a ModelRef,
    ) -> BoxFuture<'a, Result<Option<ModelDescription>, EmbedError>> {
        let _ = model;
        Box::pin(async { Ok(None) })
    }

    /// The state of one model; `None` for a vendor's model, which has no state. May read the disk, but never uses
    /// the network.
    fn state(&self, model: &ModelRef) -> Option<ModelState>;

    /// The models that this provider knows, sorted by name.
    fn models(&self) -> Vec<ModelStatus>;
}
