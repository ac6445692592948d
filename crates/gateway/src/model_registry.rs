//! Opens models and retains them. Each opened model is inside its wrappers, whether a request names it or uses it as a
//! fallback, so that all requests share the state of these wrappers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{EmbedError, Embedder, ErrorKind, Fault, Provider, ProviderKind, Retry};

use crate::{fallback::FallbackModels, metrics::OTHER, router::ResolvedModel};

/// Builds the wrappers around models. The binary's `stack.rs` implements it.
pub trait Stack: Send + Sync {
    /// Wraps the adapter of one model. `label` is the model's label in metrics.
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, label: &str) -> Arc<dyn Embedder>;

    /// Wraps a model, together with its fallback models, for the requests that name it.
    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        fallbacks: Option<FallbackModels>,
        label: &str,
    ) -> Arc<dyn Embedder>;
}

/// Opens and retains models.
pub struct ModelRegistry {
    pub(crate) providers: BTreeMap<ProviderKind, Arc<dyn Provider>>,
    pub(crate) stack: Arc<dyn Stack>,
    /// The models of the configuration and of the vendor catalogue.
    known: HashSet<ResolvedModel>,
    opened: Mutex<HashMap<ResolvedModel, Arc<dyn Embedder>>>,
}

/// Maximum retained models that neither the configuration nor the catalogue lists. A caller can name any model of a
/// vendor, so the number of such models is not bounded otherwise. Further models are opened for each request.
const MAX_UNLISTED_MODELS: usize = 256;

impl ModelRegistry {
    pub(crate) fn new(
        providers: Vec<Arc<dyn Provider>>,
        stack: Arc<dyn Stack>,
        known: HashSet<ResolvedModel>,
    ) -> Self {
        Self {
            providers: providers.into_iter().map(|provider| (provider.kind(), provider)).collect(),
            stack,
            known,
            opened: Mutex::default(),
        }
    }

    /// Opens a model and wraps its adapter.
    pub(crate) async fn open(&self, model: &ResolvedModel) -> Result<Arc<dyn Embedder>, EmbedError> {
        let opened_models = || self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(embedder) = opened_models().get(model) {
            return Ok(Arc::clone(embedder));
        }
        let adapter = self.provider(model.provider)?.open(&model.model).await?;
        let embedder = self.stack.wrap_model(adapter, self.label(model));
        let mut opened = opened_models();
        if !self.should_retain(model, opened.len()) {
            return Ok(embedder);
        }
        // Two concurrent requests may both open a model. The first embedder is retained, so that its wrappers are shared.
        Ok(Arc::clone(opened.entry(model.clone()).or_insert(embedder)))
    }

    /// Whether to retain a model when `retained` models are retained already.
    pub(crate) fn should_retain(&self, model: &ResolvedModel, retained: usize) -> bool {
        retained < self.known.len() + MAX_UNLISTED_MODELS || self.is_known(model)
    }

    /// The metric label of a model that was opened. Callers must not be able to create label values.
    pub(crate) fn label<'a>(&self, model: &'a ResolvedModel) -> &'a str {
        if self.is_known(model) { &model.model.name } else { OTHER }
    }

    fn is_known(&self, model: &ResolvedModel) -> bool {
        // A local model that was opened is on this machine's disk.
        let local = matches!(model.provider, ProviderKind::HuggingFace | ProviderKind::Onnx);
        local || self.is_listed(model)
    }

    /// Whether the configuration or the catalogue lists the model.
    pub(crate) fn is_listed(&self, model: &ResolvedModel) -> bool {
        self.known.contains(model)
    }

    pub(crate) fn provider(&self, kind: ProviderKind) -> Result<&Arc<dyn Provider>, EmbedError> {
        self.providers.get(&kind).ok_or_else(|| {
            let available: Vec<_> = self.providers.keys().map(|kind| kind.as_str()).collect();
            EmbedError::new(
                ErrorKind::Unavailable,
                Fault::Us,
                Retry::Never,
                format!("provider '{kind}' is not available; available: {}", available.join(", ")),
            )
        })
    }
}
