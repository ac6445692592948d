//! A provider whose models run on other servers. A [`VendorProtocol`](crate::vendor_protocol::VendorProtocol) has what
//! differs between vendors. This file combines the settings of a model ([`Endpoint`]), and [`model`] sends requests.
//!
//! A batch is one call: splitting, retries and limits are in the gateway. A provider without a key can be created; its
//! requests fail with an error that names the missing variable.

mod base64_support;
mod model;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use embeddery_core::{
    BoxFuture, EmbedError, Embedder, ErrorKind, Fault, InputType, ModelInfo, ModelRef, ModelState,
    ModelStatus, Provider, ProviderKind, RateListener, Retry, UpstreamServer,
};

use crate::{
    catalogue::Catalogue,
    endpoint::{Endpoint, default_url},
    http::{self, ApiKeyPool, BaseUrl, HttpClient, Target},
    local_api::Dialect,
    vendor_protocol,
};
use base64_support::Base64Support;
use model::Model;

/// The configuration of a [`Vendor`].
pub struct VendorConfig {
    /// The vendor.
    pub kind: ProviderKind,
    /// The endpoint of all models that have no endpoint of their own.
    pub endpoint: Endpoint,
    /// Settings of single models.
    pub models: HashMap<ModelRef, ModelSettings>,
    /// Limits and properties of known models.
    pub catalogue: Arc<Catalogue>,
    /// The HTTP client of all requests.
    pub client: Arc<HttpClient>,
    /// Receives the rate limits that responses report.
    pub listener: Option<Arc<dyn RateListener>>,
}

/// The settings of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelSettings {
    /// The model's own endpoint. If it has a URL of its own, keys and headers of the vendor are not sent to it.
    pub endpoint: Endpoint,
    /// Dimensions of a vector.
    pub dimensions: Option<NonZeroUsize>,
    /// Whether vectors can be reduced to fewer dimensions.
    pub matryoshka: Option<bool>,
    /// Maximum tokens of one input.
    pub max_tokens: Option<NonZeroUsize>,
    /// Prompts before a text, by its input type, for servers that have no field for the input type.
    pub prompts: HashMap<InputType, Arc<str>>,
}

/// A vendor of models, or local servers with an HTTP API.
pub struct Vendor {
    config: VendorConfig,
    /// The vendor's own keys. Its models share the pool, so that requests use the keys in turn.
    keys: Arc<ApiKeyPool>,
    /// For each address, whether its server has refused base64. It is asked for numbers then for a while, or until the
    /// configuration is loaded again.
    base64_support: Mutex<HashMap<Arc<str>, Arc<Base64Support>>>,
}

/// Maximum length of a model name. The names of all vendors are far shorter.
const MAX_NAME_BYTES: usize = 256;

impl Vendor {
    /// Creates a vendor.
    ///
    /// # Errors
    /// A key or header cannot be sent, or the vendor does not have a configured dialect.
    pub fn new(config: VendorConfig) -> Result<Self, String> {
        config.endpoint.check(config.kind)?;
        for settings in config.models.values() {
            settings.endpoint.check(config.kind)?;
        }
        let keys = config.endpoint.keys(config.kind, config.endpoint.protocol(config.kind))?;
        Ok(Self { keys: Arc::new(keys), config, base64_support: Mutex::default() })
    }

    /// Whether requests can be sent: there is a key, or none is required.
    pub fn is_usable(&self) -> bool {
        self.keys.is_usable()
    }

    /// The endpoint of a model with these settings of its own, and its URL, if it has one.
    fn endpoint(&self, own: Endpoint) -> (Endpoint, Option<BaseUrl>) {
        let endpoint = if own.url.is_some() { own } else { own.or(&self.config.endpoint) };
        let base = endpoint.url.clone().or_else(|| default_url(self.config.kind, &endpoint.keys));
        (endpoint, base)
    }

    fn base64_support(&self, server: &UpstreamServer) -> Arc<Base64Support> {
        let address = server.address.clone().unwrap_or_default();
        let mut servers = self.base64_support.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(address).or_default())
    }

    fn model(&self, model: &ModelRef) -> Result<Model, EmbedError> {
        let kind = self.config.kind;
        let name = Arc::clone(&model.name);
        check_name(kind, &name)?;
        let settings = self.config.models.get(model).cloned().unwrap_or_default();
        let (endpoint, base) = self.endpoint(settings.endpoint);
        let base = base.ok_or_else(|| missing_url(kind, &name))?;
        let server = endpoint.server(kind, &base);
        let dialect = endpoint.dialect.unwrap_or_else(|| Dialect::detect(kind, &base));
        let protocol = vendor_protocol::for_provider(kind, dialect);
        let internal = |_| EmbedError::internal("a setting is invalid although it was checked at the start");
        let headers = http::headers(&endpoint.headers).map_err(internal)?;
        // A model without settings of its own shares the vendor's pool of keys.
        let keys = match self.config.models.contains_key(model) {
            true => Arc::new(endpoint.keys(kind, protocol).map_err(internal)?),
            false => Arc::clone(&self.keys),
        };
        let entry = self.config.catalogue.model(kind, dialect, &name);
        let info = ModelInfo {
            name: Arc::clone(&name),
            provider: kind,
            dimensions: settings.dimensions.or(entry.dimensions),
            max_tokens: settings.max_tokens.or(entry.max_tokens),
            matryoshka: settings.matryoshka.or(entry.matryoshka).unwrap_or(false),
        };
        let target = Target {
            provider: kind,
            model: Arc::clone(&name),
            url: protocol.url(&base, &name),
            headers,
            keys,
            listener: self.config.listener.clone(),
            server,
        };
        Ok(Model {
            space: format!(
                "{kind}:{}{}",
                entry.space.as_deref().unwrap_or(&name),
                prompts_fingerprint(&settings.prompts)
            ),
            limits: entry.limits(),
            tokenizer: entry.tokenizer,
            info: Arc::new(info),
            observed_info: OnceLock::new(),
            prompts: settings.prompts,
            base64_support: self.base64_support(&target.server),
            protocol,
            target,
            client: Arc::clone(&self.config.client),
        })
    }
}

impl Provider for Vendor {
    fn kind(&self) -> ProviderKind {
        self.config.kind
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move { Ok(Arc::new(self.model(model)?) as Arc<dyn Embedder>) })
    }

    fn server(&self, model: Option<&ModelRef>) -> Option<UpstreamServer> {
        let settings = model.and_then(|model| self.config.models.get(model));
        let own = settings.map(|settings| settings.endpoint.clone()).unwrap_or_default();
        let (endpoint, base) = self.endpoint(own);
        Some(endpoint.server(self.config.kind, &base?))
    }

    fn download<'a>(&'a self, _: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self, _: &ModelRef) -> Option<ModelState> {
        None
    }

    fn models(&self) -> Vec<ModelStatus> {
        Vec::new()
    }
}

/// Refuses names that no vendor has. A name becomes part of a URL or body, so it must not inject anything.
fn check_name(kind: ProviderKind, name: &str) -> Result<(), EmbedError> {
    let invalid = name.is_empty() || name.len() > MAX_NAME_BYTES || matches!(name, "." | "..");
    if invalid || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let name: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(EmbedError::model_not_found(format!(
            "model '{}' is not a valid name for a model of {kind}",
            name.escape_debug()
        )));
    }
    Ok(())
}

fn missing_url(kind: ProviderKind, name: &str) -> EmbedError {
    let message = format!(
        "model '{name}' of {kind} has no URL; set api_url in its entry of `models`, or providers.{kind}.base_url"
    );
    EmbedError::new(ErrorKind::Unavailable, Fault::Us, Retry::Never, message)
}

/// The part of the space id that depends on the prompts: a hash of all of them, or nothing without prompts. Prompts change
/// every vector, so models with different prompts have different spaces.
fn prompts_fingerprint(prompts: &HashMap<InputType, Arc<str>>) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    let mut table: Vec<_> =
        prompts.iter().map(|(input_type, prompt)| (input_type.as_str(), &**prompt)).collect();
    table.sort_unstable();
    let hash = blake3::hash(format!("{table:?}").as_bytes());
    format!("+{}", &hash.to_hex()[..8])
}
