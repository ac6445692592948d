//! A provider whose models are elsewhere. What differs between vendors is in their [`Wire`]; what they have in
//! common is here: which settings a model has, one call at a time, and the proof that the answer fits.
//!
//! A batch is one call: splitting, repeating and limiting are the gateway's. A provider without a key is here
//! all the same, and says which variable is missing.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Identity, Input, InputType,
    Limits, ModelCard, ModelRef, ModelState, ModelStatus, Provider, ProviderKind, RateListener, Retry,
    SpaceId, TokenCount,
};
use secrecy::SecretString;

use crate::{
    catalogue::Catalogue,
    http::{self, Address, Call, Keys, Sender, Target},
    local_api::Dialect,
    tokens,
    wire::{self, Ask, Wire},
};

/// What a vendor is made of.
pub struct VendorConfig {
    /// Which vendor.
    pub kind: ProviderKind,
    /// Where its models are and how they are asked, unless a model says otherwise.
    pub access: Access,
    /// What configuration says of single models.
    pub models: HashMap<ModelRef, ModelSettings>,
    /// What is known of all models.
    pub catalogue: Arc<Catalogue>,
    /// How requests leave this machine.
    pub sender: Arc<Sender>,
    /// Who hears what answers say of rates.
    pub listener: Option<Arc<dyn RateListener>>,
}

/// Where models are and how they are asked.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The vendor's base, or the whole address; `None` is the vendor's own.
    pub address: Option<Address>,
    /// How it is spoken to; `None` is recognised from the address.
    pub dialect: Option<Dialect>,
    /// Used in turn.
    pub keys: Vec<SecretString>,
    /// The setting of the keys, for messages: `OPENAI_API_KEY`.
    pub key_setting: String,
    /// Sent with every request.
    pub headers: Vec<(String, SecretString)>,
}

/// What configuration says of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelSettings {
    /// Its own access. Keys and headers of the vendor are not sent to an address of the model's own.
    pub access: Access,
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
    keys: Arc<Keys>,
}

/// The longest name of any vendor's model is far shorter.
const LONGEST_NAME: usize = 256;

impl Access {
    /// What cannot be sent: a key or a header with a line break, a dialect that is not the provider's.
    pub fn check(&self, kind: ProviderKind) -> Result<(), String> {
        let known: &[Dialect] = match kind {
            ProviderKind::LocalApi => &Dialect::LOCAL,
            ProviderKind::OpenAi => &Dialect::OPENAI,
            _ => &[],
        };
        if let Some(dialect) = self.dialect.filter(|dialect| !known.contains(dialect)) {
            return Err(format!("api_dialect: '{dialect}' is not a dialect of {kind}"));
        }
        http::headers(&self.headers).and(self.keys(kind, self.wire(kind)).map(drop))
    }

    fn keys(&self, kind: ProviderKind, wire: &dyn Wire) -> Result<Keys, String> {
        let place = wire.key_header();
        let keys = Keys::new(&self.keys, place, self.key_setting.as_str())
            .map_err(|problem| format!("{}: {problem}", self.key_setting))?;
        // Servers near by may ask for none, and a header may stand in for it.
        let header = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(place.name().as_str()));
        Ok(if kind == ProviderKind::LocalApi || header { keys.optional() } else { keys })
    }

    /// These settings, and another's where these say nothing.
    fn or(self, other: &Self) -> Self {
        let (keys, key_setting) = match self.keys.is_empty() {
            true => (other.keys.clone(), other.key_setting.clone()),
            false => (self.keys, self.key_setting),
        };
        Self {
            address: self.address.or_else(|| other.address.clone()),
            dialect: self.dialect.or(other.dialect),
            keys,
            key_setting,
            headers: other.headers.iter().cloned().chain(self.headers).collect(),
        }
    }

    fn wire(&self, kind: ProviderKind) -> &'static dyn Wire {
        let recognised = || self.address.as_ref().map(|address| Dialect::recognise(kind, address));
        wire::of(kind, self.dialect.or_else(recognised).unwrap_or(Dialect::OpenAi))
    }
}

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
        let wire = wire::of(kind, dialect);
        let internal = |_| EmbedError::internal("a setting that was checked at the start is wrong");
        let headers = http::headers(&access.headers).map_err(internal)?;
        // A model without settings of its own takes turns with all others.
        let keys = match self.config.models.contains_key(model) {
            true => Arc::new(access.keys(kind, wire).map_err(internal)?),
            false => Arc::clone(&self.keys),
        };
        let known = self.config.catalogue.known(kind, dialect, &name);
        let card = ModelCard {
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
            space: format!("{kind}:{}{}", known.space.as_deref().unwrap_or(&name), mark(&settings.prompts)),
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

/// One model of a vendor.
struct Model {
    card: Arc<ModelCard>,
    /// The card with the dimension that the first answer showed.
    learnt: OnceLock<Arc<ModelCard>>,
    limits: Limits,
    /// Without the length.
    space: String,
    prompts: HashMap<InputType, Arc<str>>,
    wire: &'static dyn Wire,
    target: Target,
    sender: Arc<Sender>,
}

impl Model {
    fn card(&self) -> &Arc<ModelCard> {
        self.learnt.get().unwrap_or(&self.card)
    }

    fn ask<'a>(&'a self, request: &'a EmbedRequest, inputs: &'a [Input]) -> Result<Ask<'a>, EmbedError> {
        let own = self.card().dimensions;
        let dimensions = request.dimensions.filter(|wanted| Some(*wanted) != own);
        if let Some(wanted) = dimensions.filter(|wanted| !self.limits.lengths.contains(*wanted)) {
            return Err(EmbedError::invalid(format!(
                "dimensions: '{}' of {} does not give {wanted} numbers; leave `dimensions` out",
                self.card.name, self.card.provider
            )));
        }
        if !self.wire.takes_tokens() && inputs.iter().any(|input| input.text().is_none()) {
            return Err(EmbedError::internal("token ids reached a model of text"));
        }
        Ok(Ask {
            model: &self.card.name,
            inputs,
            input_type: request.input_type,
            dimensions,
            truncate: request.truncate,
            max_tokens: self.card.max_tokens,
        })
    }

    /// The inputs with the prompt of their purpose before them.
    fn prompted(&self, request: &EmbedRequest) -> Arc<[Input]> {
        match request.input_type.and_then(|purpose| self.prompts.get(&purpose)) {
            None => Arc::clone(&request.inputs),
            Some(prompt) => request
                .inputs
                .iter()
                .map(|input| match input.text() {
                    Some(text) => Input::Text(format!("{prompt}{text}").into()),
                    None => input.clone(),
                })
                .collect(),
        }
    }

    async fn call(&self, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
        self.target.check()?;
        let inputs = self.prompted(&request);
        let ask = self.ask(&request, &inputs)?;
        let wanted = ask.dimensions;
        let call = Call {
            body: self.wire.body(&ask)?.into(),
            items: inputs.len(),
            deadline: request.context.deadline,
        };
        let body = self.sender.post(&self.target, &call).await?;
        let nonsense = |what: String| self.target.nonsense(&what, Retry::Backoff);
        let answer = self.wire.answer(&body).map_err(nonsense)?;
        let (mut data, dim) = answer.rows.into_flat(inputs.len()).map_err(nonsense)?;
        self.check_length(dim, wanted)?;
        if request.normalize {
            data.chunks_exact_mut(dim).for_each(to_unit_length);
        }
        let counts = tokens::share(&inputs, answer.tokens);
        let billed = match self.card.provider {
            ProviderKind::LocalApi => 0,
            _ => answer.tokens.unwrap_or_else(|| counts.iter().map(|count| u64::from(*count)).sum()),
        };
        Ok(Embeddings {
            data,
            dim,
            space: SpaceId::new(format!("{}:{dim}", self.space)),
            tokens: counts,
            billed_tokens: billed,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::clone(self.card()),
        })
    }

    /// Refuses vectors of another length than was asked for, or than the model had before: a server whose
    /// model was exchanged must not go unnoticed.
    fn check_length(&self, dim: usize, wanted: Option<NonZeroUsize>) -> Result<(), EmbedError> {
        let Some(got) = NonZeroUsize::new(dim) else { return Ok(()) };
        let (due, hint) = match wanted.or(self.card.dimensions) {
            Some(due) => (due, ""),
            None => {
                let learnt = self.learnt.get_or_init(|| {
                    Arc::new(ModelCard { dimensions: Some(got), ..ModelCard::clone(&self.card) })
                });
                let hint = ", as before; if its model was exchanged on purpose, start this server anew";
                (learnt.dimensions.unwrap_or(got), hint)
            }
        };
        if due == got {
            return Ok(());
        }
        let what = format!("vectors of {got} numbers where {due} were due{hint}");
        Err(self.target.nonsense(&what, Retry::Backoff))
    }
}

impl Embedder for Model {
    fn model(&self) -> &Arc<ModelCard> {
        self.card()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn count(&self, text: &str) -> TokenCount {
        TokenCount::Estimate(tokens::estimate(text))
    }

    /// By what was known before the first answer, so that it stays the same.
    fn identity(&self) -> Option<Identity> {
        let space = match self.card.dimensions {
            Some(length) => format!("{}:{length}", self.space),
            None => self.space.clone(),
        };
        Some(Identity { space: SpaceId::new(space), precision: None })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.call(request))
    }

    /// There is nothing to load; whether there is a key can be said.
    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async { self.target.check() })
    }
}

/// Vendors answer with vectors of unit length, but not all, and not at every length. One that has it already
/// stays as it is, bit for bit.
fn to_unit_length(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if square > 0.0 && (square - 1.0).abs() > 1e-4 {
        let length = square.sqrt();
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

/// No vendor has a model of such a name, and nothing may be injected by it.
fn check_name(kind: ProviderKind, name: &str) -> Result<(), EmbedError> {
    let odd = name.is_empty() || name.len() > LONGEST_NAME || matches!(name, "." | "..");
    if odd || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let name: String = name.chars().take(LONGEST_NAME).collect();
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
fn mark(prompts: &HashMap<InputType, Arc<str>>) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    let mut table: Vec<_> = prompts.iter().map(|(purpose, prompt)| (purpose.as_str(), &**prompt)).collect();
    table.sort_unstable();
    let hash = blake3::hash(format!("{table:?}").as_bytes());
    format!("+{}", &hash.to_hex()[..8])
}

/// The vendor's own address.
fn own_address(kind: ProviderKind, keys: &[SecretString]) -> Option<Address> {
    use secrecy::ExposeSecret as _;
    let text = match kind {
        ProviderKind::OpenAi => "https://api.openai.com/v1",
        ProviderKind::Cohere => "https://api.cohere.com",
        ProviderKind::Google => "https://generativelanguage.googleapis.com",
        ProviderKind::Mistral => "https://api.mistral.ai/v1",
        // Keys of Voyage that MongoDB gives out belong to MongoDB's address.
        ProviderKind::Voyage if keys.iter().any(|key| key.expose_secret().starts_with("al-")) => {
            "https://ai.mongodb.com/v1"
        }
        ProviderKind::Voyage => "https://api.voyageai.com/v1",
        ProviderKind::HuggingFace | ProviderKind::Onnx | ProviderKind::LocalApi => return None,
    };
    Address::parse(text).ok()
}
