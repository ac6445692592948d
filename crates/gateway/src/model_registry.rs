//! Opens models and keeps them, each inside the wrappers that stand around it wherever it is asked: under its
//! own name, or in place of another. What those wrappers learn is shared by all requests.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{EmbedError, Embedder, ErrorKind, Fault, Provider, ProviderKind, Retry};

use crate::{fallback::FallbackModels, metrics::OTHER, router::ResolvedModel};

/// How models are dressed; the binary's `stack.rs` implements it.
pub trait Stack: Send + Sync {
    /// What stands around one model's adapter, wherever it is asked. Metrics call the model `label`.
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, label: &str) -> Arc<dyn Embedder>;

    /// What stands around a model as requests name it, and around those who step in for it.
    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        alternatives: Option<FallbackModels>,
        label: &str,
    ) -> Arc<dyn Embedder>;
}

/// Opens models.
pub struct ModelRegistry {
    pub(crate) providers: BTreeMap<ProviderKind, Arc<dyn Provider>>,
    pub(crate) stack: Arc<dyn Stack>,
    /// The models that configuration names or vendors are known for.
    known: HashSet<ResolvedModel>,
    opened: Mutex<HashMap<ResolvedModel, Arc<dyn Embedder>>>,
}

/// Models beyond those that configuration and providers know. A vendor's model exists when the vendor says so,
/// and a caller can name any; so only some are kept, and the others are opened anew each time.
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

    /// The model inside the wrappers of its adapter.
    pub(crate) async fn open(&self, model: &ResolvedModel) -> Result<Arc<dyn Embedder>, EmbedError> {
        let opened = || self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(embedder) = opened().get(model) {
            return Ok(Arc::clone(embedder));
        }
        let adapter = self.provider(model.provider)?.open(&model.model).await?;
        let embedder = self.stack.wrap_model(adapter, self.label(model));
        let mut opened = opened();
        if !self.should_retain(model, opened.len()) {
            return Ok(embedder);
        }
        // Two first requests may both come here: the first one's stays, so that its wrappers are shared.
        Ok(Arc::clone(opened.entry(model.clone()).or_insert(embedder)))
    }

    /// Whether a model is kept when so many are already.
    pub(crate) fn should_retain(&self, model: &ResolvedModel, kept: usize) -> bool {
        kept < self.known.len() + MAX_UNLISTED_MODELS || self.is_known(model)
    }

    /// What metrics call a model that was opened: callers must not be able to make labels.
    pub(crate) fn label<'a>(&self, model: &'a ResolvedModel) -> &'a str {
        if self.is_known(model) { &model.model.name } else { OTHER }
    }

    fn is_known(&self, model: &ResolvedModel) -> bool {
        // A local model that was opened lies on this machine's disk.
        let local = matches!(model.provider, ProviderKind::HuggingFace | ProviderKind::Onnx);
        local || self.is_listed(model)
    }

    /// Whether the configuration or the catalogue has it.
    pub(crate) fn is_listed(&self, model: &ResolvedModel) -> bool {
        self.known.contains(model)
    }

    pub(crate) fn provider(&self, kind: ProviderKind) -> Result<&Arc<dyn Provider>, EmbedError> {
        self.providers.get(&kind).ok_or_else(|| {
            let here: Vec<_> = self.providers.keys().map(|kind| kind.as_str()).collect();
            EmbedError::new(
                ErrorKind::Unavailable,
                Fault::Us,
                Retry::Never,
                format!("provider '{kind}' is not available here; available: {}", here.join(", ")),
            )
        })
    }
}
