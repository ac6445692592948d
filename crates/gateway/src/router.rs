//! Resolves the model of a request to a provider, checks the allow-list and opens the model: the provider's adapter inside
//! its wrappers. The wrappers are built once per model, so that all requests share their state. [`Router`] holds the
//! current routing table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input, ModelDescription, ModelRef,
    ModelState, Provider, ProviderKind, Retry, UpstreamServer, nearest_names,
};

mod reloadable;

use crate::{
    FallbackModels, Metrics, ModelRegistry, Policy, PolicyDenial, Service, Stack, TokenDecoder,
    metrics::OTHER, model_name,
};

pub use reloadable::Router;

/// The configuration of a router.
pub struct RouterConfig {
    /// The available providers.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The models of the configuration.
    pub models: Vec<ConfiguredModel>,
    /// The models of the vendor catalogue: requests may name them without a provider.
    pub vendor_models: Vec<VendorModel>,
    /// The model of requests that name none: a configured id, or any name that a request could use.
    pub default_model: String,
    /// Builds the wrappers.
    pub stack: Arc<dyn Stack>,
    /// The allow-list of providers and models.
    pub policy: Policy,
    /// Decodes token ids.
    pub decoder: Arc<TokenDecoder>,
    /// Counts requests that fail before a model is opened.
    pub metrics: Metrics,
}

/// A model of the vendor catalogue.
#[derive(Clone, Debug)]
pub struct VendorModel {
    /// The vendor.
    pub provider: ProviderKind,
    /// The vendor's name for the model.
    pub name: Arc<str>,
    /// Whether lists show the model. Models of a vendor without an API key are not shown.
    pub listed: bool,
}

impl VendorModel {
    fn resolved(&self) -> ResolvedModel {
        ResolvedModel { provider: self.provider, model: ModelRef::new(Arc::clone(&self.name)) }
    }
}

/// An entry of the configuration's `models`.
#[derive(Clone, Debug)]
pub struct ConfiguredModel {
    /// The name in requests.
    pub id: String,
    /// The provider of the model.
    pub provider: ProviderKind,
    /// The provider's name for the model.
    pub model: ModelRef,
    /// Names of the fallback models, in the order in which they are tried.
    pub fallback: Vec<String>,
    /// Whether a fallback model of another space may be used.
    pub allow_space_change: bool,
}

impl ConfiguredModel {
    /// A model without fallback models.
    pub fn new(id: impl Into<String>, provider: ProviderKind, model: ModelRef) -> Self {
        Self { id: id.into(), provider, model, fallback: Vec::new(), allow_space_change: false }
    }

    pub(crate) fn resolved(&self) -> ResolvedModel {
        ResolvedModel { provider: self.provider, model: self.model.clone() }
    }
}

/// The model as named by a request.
#[derive(Clone, Copy, Debug)]
pub struct ModelSelector<'a> {
    /// The request's `model`; `None` is the default model.
    pub model: Option<&'a str>,
    /// The header `x-provider`, or `provider` in the body.
    pub provider: Option<ProviderKind>,
}

/// A model with its provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolvedModel {
    /// The provider.
    pub provider: ProviderKind,
    /// The provider's name for the model.
    pub model: ModelRef,
}

/// A model in a list of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// The name in requests.
    pub id: String,
    /// The provider of the model.
    pub provider: ProviderKind,
    /// The provider's name for the model.
    pub name: Arc<str>,
    /// The model's state; `None` for a vendor's model.
    pub state: Option<ModelState>,
    /// Whether it is the default model.
    pub default: bool,
    /// Whether the allow-list allows the model.
    pub allowed: bool,
}

/// The models and rules of one configuration.
pub(crate) struct RoutingTable {
    registry: Arc<ModelRegistry>,
    models: Vec<ConfiguredModel>,
    vendor_models: Vec<VendorModel>,
    default_model: String,
    policy: Policy,
    decoder: Arc<TokenDecoder>,
    metrics: Metrics,
    /// The opened models inside their wrappers, with and without fallback models.
    stacks: Mutex<HashMap<(ResolvedModel, Fallbacks), Arc<dyn Embedder>>>,
}

/// Whether fallback models may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fallbacks {
    Allowed,
    /// The request names the provider, so no other may be used.
    Excluded,
}

impl RoutingTable {
    pub(crate) fn new(config: RouterConfig) -> Self {
        let configured = config.models.iter().map(ConfiguredModel::resolved);
        let known = configured.chain(config.vendor_models.iter().map(VendorModel::resolved)).collect();
        let table = Self {
            registry: Arc::new(ModelRegistry::new(config.providers, config.stack, known)),
            models: config.models,
            vendor_models: config.vendor_models,
            default_model: config.default_model,
            policy: config.policy,
            decoder: config.decoder,
            metrics: config.metrics,
            stacks: Mutex::default(),
        };
        if let Some(resolved) = table.lookup(ModelSelector { model: None, provider: None }) {
            table.metrics.init_series(resolved.provider, &resolved.model.name);
        }
        table
    }

    /// Embeds with the model that `selector` names.
    pub async fn embed(
        &self,
        selector: ModelSelector<'_>,
        request: EmbedRequest,
    ) -> Result<Embeddings, EmbedError> {
        let deadline = request.context.deadline;
        let opened = match deadline {
            // A model is opened outside its wrappers, so the `Deadline` wrapper does not cover this.
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), self.open(selector)).await.unwrap_or_else(|_| {
                    Err(EmbedError::timeout(
                        "the model was not ready before the deadline; warm it up, then retry",
                    ))
                })
            }
            None => self.open(selector).await,
        };
        let record_rejected = |error: &EmbedError| {
            let resolved = self.lookup(selector);
            let model = resolved.as_ref().map(|resolved| (resolved.provider, self.label(resolved)));
            self.metrics.record_rejected(model, error);
        };
        let stack = opened.inspect_err(record_rejected)?;
        let request =
            self.decode_token_inputs(request, stack.model().provider).await.inspect_err(record_rejected)?;
        stack.embed(request).await
    }

    /// Opens the model that `selector` names, inside its wrappers.
    pub async fn open(&self, selector: ModelSelector<'_>) -> Result<Arc<dyn Embedder>, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let fallback_models = self.fallback_models(&resolved, selector);
        let fallbacks = if fallback_models.is_some() { Fallbacks::Allowed } else { Fallbacks::Excluded };
        let key = (resolved, fallbacks);
        if let Some(stack) = self.stacks.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(stack));
        }
        let model = self.registry.open(&key.0).await?;
        let label = self.registry.label(&key.0);
        let stack = self.registry.stack.wrap_request(model, fallback_models, label);
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.registry.should_retain(&key.0, stacks.len()) {
            return Ok(stack);
        }
        // Two concurrent requests may both open a model. The first stack is retained, so that its wrappers are shared.
        Ok(Arc::clone(stacks.entry(key).or_insert(stack)))
    }

    /// Decodes token ids unless the provider reads them.
    async fn decode_token_inputs(
        &self,
        request: EmbedRequest,
        provider: ProviderKind,
    ) -> Result<EmbedRequest, EmbedError> {
        if !request.inputs.iter().any(|input| matches!(input, Input::Tokens(_))) {
            return Ok(request);
        }
        self.metrics.record_token_input(request.inputs.len() > 1);
        self.decoder.prepare(request, provider).await
    }

    /// The metric label of a model that may not exist. Callers must not be able to create label values.
    fn label<'a>(&self, resolved: &'a ResolvedModel) -> &'a str {
        let is_default =
            || self.lookup(ModelSelector { model: None, provider: None }).as_ref() == Some(resolved);
        if self.registry.is_listed(resolved) || is_default() { &resolved.model.name } else { OTHER }
    }

    /// Fails for a model that the allow-list denies.
    fn permit(&self, resolved: &ResolvedModel, selector: ModelSelector<'_>) -> Result<(), EmbedError> {
        let requested = selector.model.unwrap_or(&self.default_model);
        let name = &*resolved.model.name;
        let Err(denial) = self.policy.permit(resolved.provider, &[requested, name]) else { return Ok(()) };
        self.metrics.record_policy_denial(resolved.provider, self.label(resolved), denial.as_str());
        let message = match denial {
            PolicyDenial::Provider => {
                format!("provider '{}' is not on this server's allow-list", resolved.provider)
            }
            PolicyDenial::Model => format!("model '{requested}' is not on this server's allow-list"),
        };
        Err(EmbedError::new(ErrorKind::Forbidden, Fault::Caller, Retry::Never, message))
    }

    /// The fallback models of a model; `None` without any, and for a request that names the provider.
    fn fallback_models(
        &self,
        resolved: &ResolvedModel,
        selector: ModelSelector<'_>,
    ) -> Option<FallbackModels> {
        if selector.provider.is_some() {
            return None;
        }
        let mut entries = self.models.iter().filter(|entry| !entry.fallback.is_empty());
        let entry =
            entries.find(|entry| entry.provider == resolved.provider && entry.model == resolved.model)?;
        let models: Vec<ResolvedModel> = entry
            .fallback
            .iter()
            .filter_map(|name| {
                let model = self.lookup(ModelSelector { model: Some(name), provider: None })?;
                let permitted = self.policy.permit(model.provider, &[name, &model.model.name]);
                permitted.is_ok().then_some(model)
            })
            .collect();
        let (registry, allow_space_change) = (Arc::clone(&self.registry), entry.allow_space_change);
        (!models.is_empty()).then_some(FallbackModels { registry, models, allow_space_change })
    }

    /// Loads a model, so that the next request does not wait for it.
    pub async fn warm_up(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.open(selector).await?.warm_up().await?;
        Ok(resolved)
    }

    /// Removes a model from memory and returns whether it was loaded.
    pub async fn unload(&self, selector: ModelSelector<'_>) -> Result<(ResolvedModel, bool), EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let unloaded = self.registry.provider(resolved.provider)?.unload(&resolved.model).await?;
        Ok((resolved, unloaded))
    }

    /// One model as in [`models`](Self::models), with its description. Vendors' models and models that are not on this
    /// machine have no description. `None` for a model that neither the configuration nor a provider lists.
    pub async fn describe(
        &self,
        selector: ModelSelector<'_>,
    ) -> Result<Option<(ListedModel, Option<ModelDescription>)>, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        let provider = self.registry.provider(resolved.provider)?;
        let description = provider.describe(&resolved.model).await?;
        let is_model =
            |listed: &ListedModel| listed.provider == resolved.provider && listed.name == resolved.model.name;
        let mut listed = self.models();
        let exact = listed.iter().position(|listed| is_model(listed) && Some(&*listed.id) == selector.model);
        let index = exact.or_else(|| listed.iter().position(is_model));
        Ok(index.map(|index| (listed.swap_remove(index), description)))
    }

    /// Downloads a model to this machine and returns when it is complete.
    pub async fn download(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        self.registry.provider(resolved.provider)?.download(&resolved.model).await?;
        Ok(resolved)
    }

    /// All models: first the configured models in their order, then the other models that providers list.
    pub fn models(&self) -> Vec<ListedModel> {
        let default = self.lookup(ModelSelector { model: None, provider: None });
        let is_default = |provider, name: &str| {
            default.as_ref().is_some_and(|d| d.provider == provider && &*d.model.name == name)
        };
        let mut listed: Vec<ListedModel> = Vec::new();
        let allowed = |provider, names: &[&str]| self.policy.check(provider, names).is_ok();
        let statuses: HashMap<(ProviderKind, Arc<str>), ModelState> = self
            .registry
            .providers
            .iter()
            .flat_map(|(kind, provider)| provider.models().into_iter().map(|m| ((*kind, m.name), m.state)))
            .collect();
        for entry in &self.models {
            listed.push(ListedModel {
                id: entry.id.clone(),
                provider: entry.provider,
                name: Arc::clone(&entry.model.name),
                state: statuses.get(&(entry.provider, Arc::clone(&entry.model.name))).cloned(),
                default: is_default(entry.provider, &entry.model.name),
                allowed: allowed(entry.provider, &[&entry.id, &entry.model.name]),
            });
        }
        let vendor_models = self.vendor_models.iter().filter(|model| model.listed);
        let vendor_models = vendor_models.map(|model| ((model.provider, Arc::clone(&model.name)), None));
        let mut others: Vec<_> = statuses
            .into_iter()
            .map(|(model, state)| (model, Some(state)))
            .chain(vendor_models)
            .filter(|((provider, name), _)| {
                !listed.iter().any(|model| model.provider == *provider && model.name == *name)
            })
            .map(|((provider, name), state)| ListedModel {
                // An ONNX graph may have the same name as a model of the engine.
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
        listed.append(&mut others);
        listed
    }

    /// The servers of all providers and configured models. `local_api` stands for many independent servers, so a model of
    /// it is a service of its own.
    pub fn services(&self) -> Vec<Service> {
        let of_provider = self.registry.providers.iter().map(|(kind, provider)| {
            let name: Arc<str> = kind.as_str().into();
            (name, provider.server(None))
        });
        let of_model = self.models.iter().filter_map(|entry| {
            let name =
                if entry.provider == ProviderKind::LocalApi { &*entry.id } else { entry.provider.as_str() };
            Some((name.into(), self.registry.providers.get(&entry.provider)?.server(Some(&entry.model))))
        });
        let service = |(name, server): (_, Option<UpstreamServer>)| Some(Service { name, server: server? });
        of_provider.chain(of_model).filter_map(service).collect()
    }

    /// The state of the default model; `None` for a vendor's model. Cheap enough for a readiness probe.
    pub fn default_state(&self) -> Option<ModelState> {
        let resolved = self.lookup(ModelSelector { model: None, provider: None })?;
        self.registry.providers.get(&resolved.provider)?.state(&resolved.model)
    }

    /// Resolves a model to its provider and the provider's name for it. Never uses the network.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        self.lookup(selector).ok_or_else(|| self.unknown(selector.model.unwrap_or(&self.default_model)))
    }

    /// As [`resolve`](Self::resolve), and fails for a model that the allow-list denies.
    pub fn resolve_permitted(&self, selector: ModelSelector<'_>) -> Result<ResolvedModel, EmbedError> {
        let resolved = self.resolve(selector)?;
        self.permit(&resolved, selector)?;
        Ok(resolved)
    }

    /// Whether the model can be used without a download by this request: it is configured, on this machine, or a
    /// vendor's model. Also true for an unknown model, which fails when it is opened.
    pub fn is_available_without_download(&self, selector: ModelSelector<'_>) -> bool {
        let Some(resolved) = self.lookup(selector) else { return true };
        let configured = self.models.iter().any(|entry| entry.resolved() == resolved);
        let default = || self.lookup(ModelSelector { model: None, provider: None });
        configured || default().as_ref() == Some(&resolved) || {
            let state = self
                .registry
                .providers
                .get(&resolved.provider)
                .and_then(|provider| provider.state(&resolved.model));
            matches!(state, None | Some(ModelState::OnDisk | ModelState::Loaded | ModelState::Unloaded))
        }
    }

    /// Resolves a model by the rules of the specification (SPEC §3, "Model choice"), in their order.
    fn lookup(&self, selector: ModelSelector<'_>) -> Option<ResolvedModel> {
        let requested = selector.model.unwrap_or(&self.default_model);
        if let Some(entry) = self.configured(requested, selector.provider) {
            return Some(entry.resolved());
        }
        let (provider, name) = match model_name::split_prefix(requested) {
            Some((provider, name)) => (Some(provider), name),
            None => (selector.provider, requested),
        };
        if let Some(entry) = provider.and_then(|provider| self.configured(name, Some(provider))) {
            return Some(entry.resolved());
        }
        match provider {
            // Only the configuration may name directories of this machine.
            _ if model_name::looks_like_path(name) => None,
            Some(provider @ (ProviderKind::HuggingFace | ProviderKind::Onnx)) => {
                Some(ResolvedModel { provider, model: model_name::hub_name(name) })
            }
            Some(provider) => Some(ResolvedModel { provider, model: ModelRef::new(name) }),
            None => self
                .vendor_of(name)
                .map(|provider| ResolvedModel { provider, model: ModelRef::new(name) })
                .or_else(|| {
                    let model = model_name::looks_like_hub_name(name).then(|| model_name::hub_name(name))?;
                    Some(ResolvedModel { provider: ProviderKind::HuggingFace, model })
                }),
        }
    }

    fn vendor_of(&self, name: &str) -> Option<ProviderKind> {
        self.vendor_models.iter().find(|known| &*known.name == name).map(|known| known.provider)
    }

    fn configured(&self, name: &str, provider: Option<ProviderKind>) -> Option<&ConfiguredModel> {
        let by_id = self.models.iter().find(|entry| entry.id == name);
        by_id.or_else(|| {
            self.models.iter().find(|entry| {
                &*entry.model.name == name && provider.is_none_or(|provider| provider == entry.provider)
            })
        })
    }

    fn unknown(&self, name: &str) -> EmbedError {
        if model_name::looks_like_path(name) {
            return EmbedError::model_not_found(format!(
                "model '{name}' is a path; only `models` in the configuration may name directories of this machine"
            ));
        }
        let listed = self.models();
        let known = listed.iter().flat_map(|model| [model.id.as_str(), &*model.name]);
        let known = known.chain(self.vendor_models.iter().map(|model| &*model.name));
        let near = nearest_names(name, known);
        let near = &near[..near.len().min(3)];
        let hint = if near.is_empty() {
            format!("the default is '{}', GET /v1/models lists the others", self.default_model)
        } else {
            format!("did you mean '{}'?", near.join("' or '"))
        };
        EmbedError::model_not_found(format!("model '{name}' is not known here; {hint}"))
    }
}
