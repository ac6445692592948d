//! Finds who serves a model, whether that is allowed, and hands out the model's stack: the provider's adapter
//! inside its wrappers, built once per model, so that what a wrapper learns is shared by all requests. [`Router`] is
//! the table that holds now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input, ModelDescription, ModelRef,
    ModelState, Provider, ProviderKind, Retry, nearest_names,
};

mod live;

use crate::{Alternatives, Denied, Metrics, Opener, Policy, Stack, TokenDecoder, metrics::OTHER, names};

pub use live::Router;

/// What a router is made of.
pub struct RouterConfig {
    /// Who can serve models.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The models that configuration names.
    pub models: Vec<ConfiguredModel>,
    /// The models that vendors are known for: a bare name of one of them needs no provider.
    pub vendor_models: Vec<VendorModel>,
    /// The model of a request that names none: a configured id or any name a request could use.
    pub default_model: String,
    /// The wrappers.
    pub stack: Arc<dyn Stack>,
    /// Which models may be used.
    pub policy: Policy,
    /// Reads token ids.
    pub decoder: Arc<TokenDecoder>,
    /// Where requests that reach no model are counted.
    pub metrics: Metrics,
}

/// A model that a vendor is known for.
#[derive(Clone, Debug)]
pub struct VendorModel {
    /// The vendor.
    pub provider: ProviderKind,
    /// The vendor's name for it.
    pub name: Arc<str>,
    /// Whether lists show it: those of a vendor without a key would only disappoint.
    pub listed: bool,
}

impl VendorModel {
    fn resolved(&self) -> Resolved {
        Resolved { provider: self.provider, model: ModelRef::new(Arc::clone(&self.name)) }
    }
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
    /// Who answers when it cannot, in order: names that a request could use.
    pub fallback: Vec<String>,
    /// Whether a fallback's vectors may be of another space.
    pub allow_space_change: bool,
}

impl ConfiguredModel {
    /// A model without fallbacks.
    pub fn new(id: impl Into<String>, provider: ProviderKind, model: ModelRef) -> Self {
        Self { id: id.into(), provider, model, fallback: Vec::new(), allow_space_change: false }
    }

    pub(crate) fn resolved(&self) -> Resolved {
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
    /// Whether the allow-list has it.
    pub allowed: bool,
}

/// Finds and opens models, as one configuration says.
pub(crate) struct Table {
    opener: Arc<Opener>,
    models: Vec<ConfiguredModel>,
    vendor_models: Vec<VendorModel>,
    default_model: String,
    policy: Policy,
    decoder: Arc<TokenDecoder>,
    metrics: Metrics,
    /// One stack per opened model, with its fallbacks or without.
    stacks: Mutex<HashMap<(Resolved, Fallbacks), Arc<dyn Embedder>>>,
}

/// Whether others may step in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fallbacks {
    Allowed,
    /// The caller has named the provider, and means it.
    Excluded,
}

impl Table {
    pub(crate) fn new(config: RouterConfig) -> Self {
        let configured = config.models.iter().map(ConfiguredModel::resolved);
        let known = configured.chain(config.vendor_models.iter().map(VendorModel::resolved)).collect();
        let table = Self {
            opener: Arc::new(Opener::new(config.providers, config.stack, known)),
            models: config.models,
            vendor_models: config.vendor_models,
            default_model: config.default_model,
            policy: config.policy,
            decoder: config.decoder,
            metrics: config.metrics,
            stacks: Mutex::default(),
        };
        if let Some(resolved) = table.lookup(Selector { model: None, provider: None }) {
            table.metrics.announce(resolved.provider, &resolved.model.name);
        }
        table
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
        let refused = |error: &EmbedError| {
            let resolved = self.lookup(selector);
            let named = resolved.as_ref().map(|resolved| (resolved.provider, self.label(resolved)));
            self.metrics.refused(named, error);
        };
        let stack = opened.inspect_err(refused)?;
        let request = self.readable(request, stack.model().provider).await.inspect_err(refused)?;
        stack.embed(request).await
    }

    /// The stack of the model that `selector` names.
    pub async fn open(&self, selector: Selector<'_>) -> Result<Arc<dyn Embedder>, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let alternatives = self.alternatives(&resolved, selector);
        let fallbacks = if alternatives.is_some() { Fallbacks::Allowed } else { Fallbacks::Excluded };
        let key = (resolved, fallbacks);
        if let Some(stack) = self.stacks.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(stack));
        }
        let model = self.opener.open(&key.0).await?;
        let label = self.opener.label(&key.0);
        let stack = self.opener.stack.around_request(model, alternatives, label);
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.opener.keeps(&key.0, stacks.len()) {
            return Ok(stack);
        }
        // Two first requests may both come here: the first stack stays, so that its wrappers are shared.
        Ok(Arc::clone(stacks.entry(key).or_insert(stack)))
    }

    /// Token ids as the provider can take them.
    async fn readable(
        &self,
        request: EmbedRequest,
        provider: ProviderKind,
    ) -> Result<EmbedRequest, EmbedError> {
        if !request.inputs.iter().any(|input| matches!(input, Input::Tokens(_))) {
            return Ok(request);
        }
        self.metrics.token_input(request.inputs.len() > 1);
        self.decoder.prepare(request, provider).await
    }

    /// What metrics call a model that may not be here: callers must not be able to make labels.
    fn label<'a>(&self, resolved: &'a Resolved) -> &'a str {
        let is_default = || self.lookup(Selector { model: None, provider: None }).as_ref() == Some(resolved);
        if self.opener.is_listed(resolved) || is_default() { &resolved.model.name } else { OTHER }
    }

    /// Refuses what the allow-list does not have.
    fn permit(&self, resolved: &Resolved, selector: Selector<'_>) -> Result<(), EmbedError> {
        let asked = selector.model.unwrap_or(&self.default_model);
        let name = &*resolved.model.name;
        let Err(denied) = self.policy.permit(resolved.provider, &[asked, name]) else { return Ok(()) };
        self.metrics.refused_by_policy(resolved.provider, self.label(resolved), denied.as_str());
        let message = match denied {
            Denied::Provider => {
                format!("provider '{}' is not on this server's allow-list", resolved.provider)
            }
            Denied::Model => format!("model '{asked}' is not on this server's allow-list"),
        };
        Err(EmbedError::new(ErrorKind::Forbidden, Fault::Caller, Retry::Never, message))
    }

    /// Who steps in for a model; nobody for a caller who has named the provider.
    fn alternatives(&self, resolved: &Resolved, selector: Selector<'_>) -> Option<Alternatives> {
        if selector.provider.is_some() {
            return None;
        }
        let mut entries = self.models.iter().filter(|entry| !entry.fallback.is_empty());
        let entry =
            entries.find(|entry| entry.provider == resolved.provider && entry.model == resolved.model)?;
        let models: Vec<Resolved> = entry
            .fallback
            .iter()
            .filter_map(|name| {
                let model = self.lookup(Selector { model: Some(name), provider: None })?;
                let permitted = self.policy.permit(model.provider, &[name, &model.model.name]);
                permitted.is_ok().then_some(model)
            })
            .collect();
        let (opener, allow_space_change) = (Arc::clone(&self.opener), entry.allow_space_change);
        (!models.is_empty()).then_some(Alternatives { opener, models, allow_space_change })
    }

    /// Loads a model, so that the next request does not wait.
    pub async fn warm_up(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.open(selector).await?.warm_up().await?;
        Ok(resolved)
    }

    /// Lets a model go that is in memory; says whether it was.
    pub async fn unload(&self, selector: Selector<'_>) -> Result<(Resolved, bool), EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let unloaded = self.opener.provider(resolved.provider)?.unload(&resolved.model).await?;
        Ok((resolved, unloaded))
    }

    /// One model as lists show it, with what is known of it without loading it: nothing of vendors' models and of those
    /// that are not here. `None` when neither configuration nor a provider knows it.
    pub async fn describe(
        &self,
        selector: Selector<'_>,
    ) -> Result<Option<(ListedModel, Option<ModelDescription>)>, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let provider = self.opener.provider(resolved.provider)?;
        let description = provider.describe(&resolved.model).await?;
        let of_it =
            |listed: &ListedModel| listed.provider == resolved.provider && listed.name == resolved.model.name;
        let mut listed = self.models();
        let exact = listed.iter().position(|listed| of_it(listed) && Some(&*listed.id) == selector.model);
        let found = exact.or_else(|| listed.iter().position(of_it));
        Ok(found.map(|index| (listed.swap_remove(index), description)))
    }

    /// Brings a model to this machine and returns when it is there.
    pub async fn download(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        self.opener.provider(resolved.provider)?.download(&resolved.model).await?;
        Ok(resolved)
    }

    /// Configured models first, in their order, then the others that providers know of.
    pub fn models(&self) -> Vec<ListedModel> {
        let default = self.lookup(Selector { model: None, provider: None });
        let is_default = |provider, name: &str| {
            default.as_ref().is_some_and(|d| d.provider == provider && &*d.model.name == name)
        };
        let mut known: Vec<ListedModel> = Vec::new();
        let allowed = |provider, names: &[&str]| self.policy.check(provider, names).is_ok();
        let statuses: HashMap<(ProviderKind, Arc<str>), ModelState> = self
            .opener
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
                allowed: allowed(entry.provider, &[&entry.id, &entry.model.name]),
            });
        }
        let of_vendors = self.vendor_models.iter().filter(|model| model.listed);
        let of_vendors = of_vendors.map(|model| ((model.provider, Arc::clone(&model.name)), None));
        let mut others: Vec<_> = statuses
            .into_iter()
            .map(|(model, state)| (model, Some(state)))
            .chain(of_vendors)
            .filter(|((provider, name), _)| {
                !known.iter().any(|listed| listed.provider == *provider && listed.name == *name)
            })
            .map(|((provider, name), state)| ListedModel {
                // A graph may have the name of a model that the engine runs.
                id: if provider == ProviderKind::Onnx {
                    format!("{provider}:{name}")
                } else {
                    name.to_string()
                },
                provider,
                default: is_default(provider, &name),
                allowed: allowed(provider, &[&name]),
                name,
                state,
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
        self.opener.providers.get(&resolved.provider)?.state(&resolved.model)
    }

    /// Which provider serves the model, and under which name. Never uses the network.
    pub fn resolve(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        self.lookup(selector).ok_or_else(|| self.unknown(selector.model.unwrap_or(&self.default_model)))
    }

    /// Who serves the model, if the allow-list has it.
    pub fn permitted(&self, selector: Selector<'_>) -> Result<Resolved, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        Ok(resolved)
    }

    /// Whether the model can serve without being fetched first: configuration names it, it is on this machine, or
    /// it never has to be. What nobody knows is refused elsewhere.
    pub fn is_at_hand(&self, selector: Selector<'_>) -> bool {
        let Some(resolved) = self.lookup(selector) else { return true };
        let configured = self.models.iter().any(|entry| entry.resolved() == resolved);
        let default = || self.lookup(Selector { model: None, provider: None });
        configured || default().as_ref() == Some(&resolved) || {
            let state =
                self.opener.providers.get(&resolved.provider).and_then(|found| found.state(&resolved.model));
            matches!(state, None | Some(ModelState::OnDisk | ModelState::Loaded | ModelState::Unloaded))
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
            Some(provider @ (ProviderKind::HuggingFace | ProviderKind::Onnx)) => {
                Some(Resolved { provider, model: names::hub_name(name) })
            }
            Some(provider) => Some(Resolved { provider, model: ModelRef::new(name) }),
            None => self
                .vendor_of(name)
                .map(|provider| Resolved { provider, model: ModelRef::new(name) })
                .or_else(|| {
                    let model = names::looks_like_hub_name(name).then(|| names::hub_name(name))?;
                    Some(Resolved { provider: ProviderKind::HuggingFace, model })
                }),
        }
    }

    fn vendor_of(&self, name: &str) -> Option<ProviderKind> {
        self.vendor_models.iter().find(|known| &*known.name == name).map(|known| known.provider)
    }

    fn configured(&self, asked: &str, provider: Option<ProviderKind>) -> Option<&ConfiguredModel> {
        let by_id = self.models.iter().find(|entry| entry.id == asked);
        by_id.or_else(|| {
            self.models.iter().find(|entry| {
                &*entry.model.name == asked && provider.is_none_or(|provider| provider == entry.provider)
            })
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
        let known = known.chain(self.vendor_models.iter().map(|model| &*model.name));
        let near = nearest_names(asked, known);
        let near = &near[..near.len().min(3)];
        let hint = if near.is_empty() {
            format!("the default is '{}', GET /v1/models lists the others", self.default_model)
        } else {
            format!("did you mean '{}'?", near.join("' or '"))
        };
        EmbedError::model_not_found(format!("model '{asked}' is not known here; {hint}"))
    }
}
