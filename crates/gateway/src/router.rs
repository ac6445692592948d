//! Finds who serves a model and hands out the model's stack: the provider's adapter inside its wrappers,
//! built once per model, so that what a wrapper learns is shared by all requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, ModelRef, ModelState, Provider,
    ProviderKind, Retry,
};

use crate::{Metrics, names};

/// Puts a provider's adapter inside the wrappers; the binary's `stack.rs` is the one that does.
pub type Wrap = Arc<dyn Fn(Arc<dyn Embedder>) -> Arc<dyn Embedder> + Send + Sync>;

/// What a router is made of.
pub struct RouterConfig {
    /// Who can serve models.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The models that configuration names.
    pub models: Vec<ConfiguredModel>,
    /// The model of a request that names none: a configured id or any name a request could use.
    pub default_model: String,
    /// The wrappers.
    pub wrap: Wrap,
    /// Where requests that reach no model are counted.
    pub metrics: Metrics,
}

/// An entry of the configuration's `models`.
#[derive(Clone, Debug)]
pub struct ConfiguredModel {
    /// The name requests may use.
    pub id: String,
    /// Who serves it.
    pub provider: ProviderKind,
    /// The provider's name for it.
    pub model: ModelRef,
}

impl ConfiguredModel {
    fn resolved(&self) -> Resolved {
        Resolved { provider: self.provider, model: self.model.clone() }
    }
}

/// How a request names its model.
#[derive(Clone, Copy, Debug)]
pub struct Selector<'a> {
    /// The request's `model`; `None` is the default model.
    pub model: Option<&'a str>,
    /// The header `x-provider`, or a body's `provider`.
    pub provider: Option<ProviderKind>,
}

/// Who serves a model, and under which name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// The provider.
    pub provider: ProviderKind,
    /// The provider's name for it.
    pub model: ModelRef,
}

/// A model as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// What a request may call it.
    pub id: String,
    /// Who serves it.
    pub provider: ProviderKind,
    /// The provider's name for it.
    pub name: Arc<str>,
    /// Where it stands; `None` where models have no life of their own (vendors).
    pub state: Option<ModelState>,
    /// Whether it answers requests that name no model.
    pub default: bool,
}

/// Finds and opens models.
pub struct Router {
    providers: BTreeMap<ProviderKind, Arc<dyn Provider>>,
    models: Vec<ConfiguredModel>,
    default_model: String,
    wrap: Wrap,
    metrics: Metrics,
    /// One stack per opened model. Only models that exist get in, so callers cannot grow it.
    stacks: Mutex<HashMap<Resolved, Arc<dyn Embedder>>>,
}

impl Router {
    /// A router over these providers and models.
    pub fn new(config: RouterConfig) -> Self {
        let providers = config.providers.into_iter().map(|provider| (provider.kind(), provider)).collect();
        let router = Self {
            providers,
            models: config.models,
            default_model: config.default_model,
            wrap: config.wrap,
            metrics: config.metrics,
            stacks: Mutex::default(),
        };
        if let Some(resolved) = router.lookup(Selector { model: None, provider: None }) {
            router.metrics.announce(resolved.provider, &resolved.model.name);
        }
        router
    }

    /// Embeds with the model that `selector` names.
    pub async fn embed(
        &self,
        selector: Selector<'_>,
        request: EmbedRequest,
    ) -> Result<Embeddings, EmbedError> {
        let deadline = request.context.deadline;
        let opened = match deadline {
            // Opening happens outside the stack, so its deadline wrapper does not cover it.
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), self.open(selector)).await.unwrap_or_else(|_| {
                    Err(EmbedError::timeout(
                        "the model was not ready before the deadline; warm it up, then ask again",
                    ))
                })
            }
            None => self.open(selector).await,
        };
        let stack = opened.inspect_err(|error| {
            let provider = self.lookup(selector).map(|resolved| resolved.provider);
            self.metrics.refused(provider, error);
        })?;
        stack.embed(request).await
    }

    /// The stack of the model that `selector` names.
    pub async fn open(&self, selector: Selector<'_>) -> Result<Arc<dyn Embedder>, EmbedError> {
        let resolved = self.resolve(selector)?;
        if let Some(stack) = self.stacks.lock().unwrap_or_else(PoisonError::into_inner).get(&resolved) {
            return Ok(Arc::clone(stack));
        }
        let adapter = self.provider(resolved.provider)?.open(&resolved.model).await?;
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        // Two first requests may both come here: the first stack stays, so that its wrappers are shared.
        Ok(Arc::clone(stacks.entry(resolved).or_insert_with(|| (self.wrap)(adapter))))
    }

    /// Loads a model, so that the next request does not wait.
    pub async fn warm_up(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.open(selector).await?.warm_up().await?;
        Ok(resolved)
    }

    /// Brings a model to this machine and returns when it is there.
    pub async fn download(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.provider(resolved.provider)?.download(&resolved.model).await?;
        Ok(resolved)
    }

    /// Configured models first, in their order, then the others that providers know of.
    pub fn models(&self) -> Vec<ListedModel> {
        let default = self.lookup(Selector { model: None, provider: None });
        let is_default = |provider, name: &str| {
            default.as_ref().is_some_and(|d| d.provider == provider && &*d.model.name == name)
        };
        let mut known: Vec<ListedModel> = Vec::new();
        let statuses: HashMap<(ProviderKind, Arc<str>), ModelState> = self
            .providers
            .iter()
            .flat_map(|(kind, provider)| provider.models().into_iter().map(|m| ((*kind, m.name), m.state)))
            .collect();
        for entry in &self.models {
            known.push(ListedModel {
                id: entry.id.clone(),
                provider: entry.provider,
                name: Arc::clone(&entry.model.name),
                state: statuses.get(&(entry.provider, Arc::clone(&entry.model.name))).cloned(),
                default: is_default(entry.provider, &entry.model.name),
            });
        }
        let mut others: Vec<_> = statuses
            .into_iter()
            .filter(|((provider, name), _)| {
                !known.iter().any(|listed| listed.provider == *provider && listed.name == *name)
            })
            .map(|((provider, name), state)| ListedModel {
                id: name.to_string(),
                provider,
                default: is_default(provider, &name),
                name,
                state: Some(state),
            })
            .collect();
        others.sort_by(|a, b| a.id.cmp(&b.id));
        known.append(&mut others);
        known
    }

    /// Where the default model stands; `None` where its provider's models have no life of their own. Cheap
    /// enough for a readiness probe.
    pub fn default_state(&self) -> Option<ModelState> {
        let resolved = self.lookup(Selector { model: None, provider: None })?;
        self.providers.get(&resolved.provider)?.state(&resolved.model)
    }

    /// The name of the model that answers when a request names none.
    pub fn default_model(&self) -> &str {
        &self.default_model
    }

    /// Which provider serves the model, and under which name. Never uses the network.
    pub fn resolve(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        self.lookup(selector).ok_or_else(|| self.unknown(selector.model.unwrap_or(&self.default_model)))
    }

    /// Whether the model can serve without being fetched first: configuration names it, it is on this machine, or
    /// it never has to be. What nobody knows is refused elsewhere.
    pub fn is_at_hand(&self, selector: Selector<'_>) -> bool {
        let Some(resolved) = self.lookup(selector) else { return true };
        let configured = self.models.iter().any(|entry| entry.resolved() == resolved);
        let default = || self.lookup(Selector { model: None, provider: None });
        configured || default().as_ref() == Some(&resolved) || {
            let state = self.providers.get(&resolved.provider).and_then(|found| found.state(&resolved.model));
            matches!(state, None | Some(ModelState::OnDisk | ModelState::Loaded))
        }
    }

    /// The rules of the specification (SPEC §3, "Model choice"), in their order.
    fn lookup(&self, selector: Selector<'_>) -> Option<Resolved> {
        let asked = selector.model.unwrap_or(&self.default_model);
        if let Some(entry) = self.configured(asked, selector.provider) {
            return Some(entry.resolved());
        }
        let (provider, name) = match names::split_prefix(asked) {
            Some((provider, name)) => (Some(provider), name),
            None => (selector.provider, asked),
        };
        if let Some(entry) = provider.and_then(|provider| self.configured(name, Some(provider))) {
            return Some(entry.resolved());
        }
        match provider {
            // Only configuration may name places on this machine's disk.
            _ if names::looks_like_path(name) => None,
            Some(ProviderKind::HuggingFace) => {
                Some(Resolved { provider: ProviderKind::HuggingFace, model: names::hub_name(name) })
            }
            Some(provider) => Some(Resolved { provider, model: ModelRef::new(name) }),
            None if names::looks_like_hub_name(name) => {
                Some(Resolved { provider: ProviderKind::HuggingFace, model: names::hub_name(name) })
            }
            None => None,
        }
    }

    fn configured(&self, asked: &str, provider: Option<ProviderKind>) -> Option<&ConfiguredModel> {
        let by_id = self.models.iter().find(|entry| entry.id == asked);
        by_id.or_else(|| {
            self.models.iter().find(|entry| {
                &*entry.model.name == asked && provider.is_none_or(|provider| provider == entry.provider)
            })
        })
    }

    fn provider(&self, kind: ProviderKind) -> Result<&Arc<dyn Provider>, EmbedError> {
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

    fn unknown(&self, asked: &str) -> EmbedError {
        if names::looks_like_path(asked) {
            return EmbedError::model_not_found(format!(
                "model '{asked}' is a path; only the configuration's `models` may name directories of this machine"
            ));
        }
        let listed = self.models();
        let known = listed.iter().flat_map(|model| [model.id.as_str(), &*model.name]);
        let near = names::nearest(asked, known);
        let hint = if near.is_empty() {
            format!("the default is '{}', GET /v1/models lists the others", self.default_model)
        } else {
            format!("did you mean '{}'?", near.join("' or '"))
        };
        EmbedError::model_not_found(format!("model '{asked}' is not known here; {hint}"))
    }
}
