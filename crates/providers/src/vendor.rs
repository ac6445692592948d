//! A provider whose models are elsewhere. What differs between vendors is in their `Wire`; what they have in
//! common is here: which settings a model has ([`access`](crate::endpoint)), and how it is asked ([`model`]).
//!
//! A batch is one call: splitting, repeating and limiting are the gateway's. A provider without a key is here
//! all the same, and says which variable is missing.

mod model;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use embeddery_core::{
    BoxFuture, EmbedError, Embedder, ErrorKind, Fault, InputType, ModelInfo, ModelRef, ModelState,
    ModelStatus, Provider, ProviderKind, RateListener, Retry,
};

use crate::{
    catalogue::Catalogue,
    endpoint::{Endpoint, own_address},
    http::{self, ApiKeyPool, HttpClient, Target},
    local_api::Dialect,
    vendor_protocol,
};
use model::Model;

/// What a vendor is made of.
pub struct VendorConfig {
    /// Which vendor.
    pub kind: ProviderKind,
    /// Where its models are and how they are asked, unless a model says otherwise.
    pub access: Endpoint,
    /// What configuration says of single models.
    pub models: HashMap<ModelRef, ModelSettings>,
    /// What is known of all models.
    pub catalogue: Arc<Catalogue>,
    /// How requests leave this machine.
    pub sender: Arc<HttpClient>,
    /// Who hears what answers say of rates.
    pub listener: Option<Arc<dyn RateListener>>,
}

/// What configuration says of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelSettings {
    /// Its own access. Keys and headers of the vendor are not sent to an address of the model's own.
    pub access: Endpoint,
    /// Length of a vector.
    pub dimensions: Option<NonZeroUsize>,
    /// Whether a cut vector is itself a good vector.
    pub matryoshka: Option<bool>,
    /// Most tokens of one input.
    pub max_tokens: Option<NonZeroUsize>,
    /// Words before a text, by its purpose; for servers that have no field for it.
    pub prompts: HashMap<InputType, Arc<str>>,
}

/// A vendor, or servers near by.
pub struct Vendor {
    config: VendorConfig,
    /// The vendor's own keys, shared by its models so that they take turns over all of them.
    keys: Arc<ApiKeyPool>,
}

/// The longest name of any vendor's model is far shorter.
const MAX_NAME_BYTES: usize = 256;

impl Vendor {
    /// A vendor; fails when a key or a header cannot be sent or a dialect is not the vendor's.
    pub fn new(config: VendorConfig) -> Result<Self, String> {
        config.access.check(config.kind)?;
        for settings in config.models.values() {
            settings.access.check(config.kind)?;
        }
        let keys = config.access.keys(config.kind, config.access.wire(config.kind))?;
        Ok(Self { keys: Arc::new(keys), config })
    }

    /// Whether requests can be sent: there is a key, or none is needed.
    pub fn usable(&self) -> bool {
        self.keys.usable()
    }

    fn model(&self, model: &ModelRef) -> Result<Model, EmbedError> {
        let kind = self.config.kind;
        let name = Arc::clone(&model.name);
        check_name(kind, &name)?;
        let settings = self.config.models.get(model).cloned().unwrap_or_default();
        let (own, shared) = (settings.access, &self.config.access);
        let access = if own.address.is_some() { own } else { own.or(shared) };
        let base = access.address.clone().or_else(|| own_address(kind, &access.keys));
        let base = base.ok_or_else(|| no_address(kind, &name))?;
        let dialect = access.dialect.unwrap_or_else(|| Dialect::recognise(kind, &base));
        let wire = vendor_protocol::of(kind, dialect);
        let internal = |_| EmbedError::internal("a setting that was checked at the start is wrong");
        let headers = http::headers(&access.headers).map_err(internal)?;
        // A model without settings of its own takes turns with all others.
        let keys = match self.config.models.contains_key(model) {
            true => Arc::new(access.keys(kind, wire).map_err(internal)?),
            false => Arc::clone(&self.keys),
        };
        let known = self.config.catalogue.known(kind, dialect, &name);
        let card = ModelInfo {
            name: Arc::clone(&name),
            provider: kind,
            dimensions: settings.dimensions.or(known.dimensions),
            max_tokens: settings.max_tokens.or(known.max_tokens),
            matryoshka: settings.matryoshka.or(known.matryoshka).unwrap_or(false),
        };
        let target = Target {
            provider: kind,
            model: Arc::clone(&name),
            address: wire.address(&base, &name),
            headers,
            keys,
            listener: self.config.listener.clone(),
        };
        Ok(Model {
            space: format!(
                "{kind}:{}{}",
                known.space.as_deref().unwrap_or(&name),
                prompts_fingerprint(&settings.prompts)
            ),
            limits: known.limits(),
            card: Arc::new(card),
            learnt: OnceLock::new(),
            prompts: settings.prompts,
            wire,
            target,
            sender: Arc::clone(&self.config.sender),
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

/// No vendor has a model of such a name, and nothing may be injected by it.
fn check_name(kind: ProviderKind, name: &str) -> Result<(), EmbedError> {
    let odd = name.is_empty() || name.len() > MAX_NAME_BYTES || matches!(name, "." | "..");
    if odd || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let name: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(EmbedError::model_not_found(format!(
            "model '{}' is not a name that {kind} could have",
            name.escape_debug()
        )));
    }
    Ok(())
}

fn no_address(kind: ProviderKind, name: &str) -> EmbedError {
    let message = format!(
        "model '{name}' of {kind} has no address; set api_url in its entry of `models`, or providers.{kind}.base_url"
    );
    EmbedError::new(ErrorKind::Unavailable, Fault::Us, Retry::Never, message)
}

/// Prompts change every vector, so they are part of the space: nothing without prompts, else a hash of all.
fn prompts_fingerprint(prompts: &HashMap<InputType, Arc<str>>) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    let mut table: Vec<_> = prompts.iter().map(|(purpose, prompt)| (purpose.as_str(), &**prompt)).collect();
    table.sort_unstable();
    let hash = blake3::hash(format!("{table:?}").as_bytes());
    format!("+{}", &hash.to_hex()[..8])
}
