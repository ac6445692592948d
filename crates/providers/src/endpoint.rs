//! Where a provider's models are and how they are asked: address, dialect, keys, headers. What a model says of
//! itself comes before what its provider says, and never takes the provider's secrets to another address.

use embeddery_core::ProviderKind;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    http::{self, ApiKeyPool, BaseUrl},
    local_api::Dialect,
    vendor_protocol::{self, VendorProtocol},
};

/// Where models are and how they are asked.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// The vendor's base, or the whole address; `None` is the vendor's own.
    pub address: Option<BaseUrl>,
    /// How it is spoken to; `None` is recognised from the address.
    pub dialect: Option<Dialect>,
    /// Used in turn.
    pub keys: Vec<SecretString>,
    /// The setting of the keys, for messages: `OPENAI_API_KEY`.
    pub key_setting: String,
    /// Sent with every request.
    pub headers: Vec<(String, SecretString)>,
}

impl Endpoint {
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

    pub(crate) fn keys(&self, kind: ProviderKind, wire: &dyn VendorProtocol) -> Result<ApiKeyPool, String> {
        let place = wire.key_header();
        let keys = ApiKeyPool::new(&self.keys, place, self.key_setting.as_str())
            .map_err(|problem| format!("{}: {problem}", self.key_setting))?;
        // Servers near by may ask for none, and a header may stand in for it.
        let header = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(place.name().as_str()));
        Ok(if kind == ProviderKind::LocalApi || header { keys.optional() } else { keys })
    }

    /// These settings, and another's where these say nothing.
    pub(crate) fn or(self, other: &Self) -> Self {
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

    pub(crate) fn wire(&self, kind: ProviderKind) -> &'static dyn VendorProtocol {
        let recognised = || self.address.as_ref().map(|address| Dialect::recognise(kind, address));
        vendor_protocol::of(kind, self.dialect.or_else(recognised).unwrap_or(Dialect::OpenAi))
    }
}

/// The vendor's own address.
pub(crate) fn own_address(kind: ProviderKind, keys: &[SecretString]) -> Option<BaseUrl> {
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
    BaseUrl::parse(text).ok()
}
