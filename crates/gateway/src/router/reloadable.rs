//! The router, which holds the current routing table. A reloaded configuration replaces the table; requests in progress
//! keep the table with which they started.

use std::sync::Arc;

use arc_swap::ArcSwap;
use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, ModelDescription, ModelState, ProviderKind,
};

use super::{ListedModel, ModelSelector, ResolvedModel, RouterConfig, RoutingTable};
use crate::{Policy, Service};

/// Resolves model names and opens models.
pub struct Router(ArcSwap<RoutingTable>);

impl Router {
    /// Creates a router from a configuration.
    pub fn new(config: RouterConfig) -> Self {
        Self(ArcSwap::from_pointee(RoutingTable::new(config)))
    }

    /// Replaces the routing table by the table of `other`.
    pub fn replace_with(&self, other: &Self) {
        self.0.store(other.table());
    }

    fn table(&self) -> Arc<RoutingTable> {
        self.0.load_full()
    }

    /// Embeds with the model that `selector` names.
    pub async fn embed(
        &self,
        selector: ModelSelector<'_>,
        request: EmbedRequest,
    ) -> Result<Embeddings, EmbedError> {
        self.table().embed(selector, request).await
    }

    /// Opens the model that `selector` names, inside its wrappers.
    pub async fn open(&self, selector: ModelSelector<'_>) -> Result<Arc<dyn Embedder>, EmbedError> {
        self.table().open(selector).await
    }

    /// Loads a model, so that the next request does not wait for it.
    pub async fn warm_up(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().warm_up(selector).await
    }

    /// Removes a model from memory and returns whether it was loaded.
    pub async fn unload(&self, selector: ModelSelector<'_>) -> Result<(ResolvedModel, bool), EmbedError> {
        self.table().unload(selector).await
    }

    /// One model as in [`models`](Self::models), with its description. Vendors' models and models that are not on this
    /// machine have no description. `None` for a model that neither the configuration nor a provider lists.
    pub async fn describe(
        &self,
        selector: ModelSelector<'_>,
    ) -> Result<Option<(ListedModel, Option<ModelDescription>)>, EmbedError> {
        self.table().describe(selector).await
    }

    /// Downloads a model to this machine and returns when it is complete.
    pub async fn download(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().download(selector).await
    }

    /// All models: first the configured models in their order, then the other models that providers list.
    pub fn models(&self) -> Vec<ListedModel> {
        self.table().models()
    }

    /// The state of the default model; `None` for a vendor's model. Cheap enough for a readiness probe.
    pub fn default_state(&self) -> Option<ModelState> {
        self.table().default_state()
    }

    /// The allow-list of providers and models.
    pub fn policy(&self) -> Policy {
        self.table().policy.clone()
    }

    /// The available providers.
    pub fn providers(&self) -> Vec<ProviderKind> {
        self.table().registry.providers.keys().copied().collect()
    }

    /// The servers of all providers and configured models.
    pub fn services(&self) -> Vec<Service> {
        self.table().services()
    }

    /// The name of the default model.
    pub fn default_model(&self) -> String {
        self.table().default_model.clone()
    }

    /// Resolves a model to its provider and the provider's name for it. Never uses the network.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().resolve(selector)
    }

    /// As [`resolve`](Self::resolve), and fails for a model that the allow-list denies.
    pub fn resolve_permitted(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().resolve_permitted(selector)
    }

    /// Whether the model can be used without a download by this request: it is configured, on this machine, or a
    /// vendor's model. Also true for an unknown model, which fails when it is opened.
    pub fn is_available_without_download(&self, selector: ModelSelector<'_>) -> bool {
        self.table().is_available_without_download(selector)
    }
}
