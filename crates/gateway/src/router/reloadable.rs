//! The router that everybody holds: whichever table is in force. A configuration that is read anew puts another one
//! in its place; requests under way end as they began.

use std::sync::Arc;

use arc_swap::ArcSwap;
use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, ModelDescription, ModelState, ProviderKind,
};

use super::{ListedModel, ModelSelector, ResolvedModel, RouterConfig, RoutingTable};
use crate::Policy;

/// Finds and opens models.
pub struct Router(ArcSwap<RoutingTable>);

impl Router {
    /// A router over these providers and models.
    pub fn new(config: RouterConfig) -> Self {
        Self(ArcSwap::from_pointee(RoutingTable::new(config)))
    }

    /// From now on finds what `other` finds.
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

    /// The stack of the model that `selector` names.
    pub async fn open(&self, selector: ModelSelector<'_>) -> Result<Arc<dyn Embedder>, EmbedError> {
        self.table().open(selector).await
    }

    /// Loads a model, so that the next request does not wait.
    pub async fn warm_up(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().warm_up(selector).await
    }

    /// Lets a model go that is in memory; says whether it was.
    pub async fn unload(&self, selector: ModelSelector<'_>) -> Result<(ResolvedModel, bool), EmbedError> {
        self.table().unload(selector).await
    }

    /// One model as lists show it, with what is known of it without loading it: nothing of vendors' models and of those
    /// that are not here. `None` when neither configuration nor a provider knows it.
    pub async fn describe(
        &self,
        selector: ModelSelector<'_>,
    ) -> Result<Option<(ListedModel, Option<ModelDescription>)>, EmbedError> {
        self.table().describe(selector).await
    }

    /// Brings a model to this machine and returns when it is there.
    pub async fn download(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().download(selector).await
    }

    /// Configured models first, in their order, then the others that providers know of.
    pub fn models(&self) -> Vec<ListedModel> {
        self.table().models()
    }

    /// Where the default model stands; `None` where its provider's models have no life of their own. Cheap
    /// enough for a readiness probe.
    pub fn default_state(&self) -> Option<ModelState> {
        self.table().default_state()
    }

    /// Which models may be used.
    pub fn policy(&self) -> Policy {
        self.table().policy.clone()
    }

    /// The providers that are here.
    pub fn providers(&self) -> Vec<ProviderKind> {
        self.table().opener.providers.keys().copied().collect()
    }

    /// The name of the model that answers when a request names none.
    pub fn default_model(&self) -> String {
        self.table().default_model.clone()
    }

    /// Which provider serves the model, and under which name. Never uses the network.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().resolve(selector)
    }

    /// Who serves the model, if the allow-list has it.
    pub fn permitted(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.table().permitted(selector)
    }

    /// Whether the model can serve without being fetched first: configuration names it, it is on this machine, or
    /// it never has to be. What nobody knows is refused elsewhere.
    pub fn is_at_hand(&self, selector: ModelSelector<'_>) -> bool {
        self.table().is_available_without_download(selector)
    }
}
