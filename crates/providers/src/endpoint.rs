//! The endpoint of a provider or model: URL, dialect, keys, headers. Settings of a model override those of its provider.
//! The provider's secrets are never sent to a URL of the model's own.

use embeddery_core::{ProviderKind, UpstreamServer};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    http::{self, ApiKeyPool, BaseUrl},
    local_api::Dialect,
    vendor_protocol::{self, VendorProtocol},
};

/// Where and how models are reached.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// The base URL, or the complete URL of requests; `None` is the vendor's own.
    pub url: Option<BaseUrl>,
    /// The API of the server; `None` detects it from the URL.
    pub dialect: Option<Dialect>,
    /// API keys, used in turn.
    pub keys: Vec<SecretString>,
    /// The name of the setting that holds the keys, for messages: `OPENAI_API_KEY`.
    pub key_setting: String,
    /// Headers of every request.
    pub headers: Vec<(String, SecretString)>,
}

impl Endpoint {
    /// Checks that the keys and headers can be sent and that the provider has the dialect.
    ///
    /// # Errors
    /// What is wrong, with the name of the setting.
    pub fn check(&self, kind: ProviderKind) -> Result<(), String> {
        let supported: &[Dialect] = match kind {
            ProviderKind::LocalApi => &Dialect::LOCAL,
            ProviderKind::OpenAi => &Dialect::OPENAI,
            _ => &[],
        };
        if let Some(dialect) = self.dialect.filter(|dialect| !supported.contains(dialect)) {
            return Err(format!("api_dialect: '{dialect}' is not a dialect of {kind}"));
        }
        http::headers(&self.headers).and(self.keys(kind, self.protocol(kind)).map(drop))
    }

    pub(crate) fn keys(
        &self,
        kind: ProviderKind,
        protocol: &dyn VendorProtocol,
    ) -> Result<ApiKeyPool, String> {
        let key_header = protocol.key_header();
        let keys = ApiKeyPool::new(&self.keys, key_header, self.key_setting.as_str())
            .map_err(|problem| format!("{}: {problem}", self.key_setting))?;
        // Local servers may need no key, and a configured header may replace it.
        let has_header =
            self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(key_header.name().as_str()));
        Ok(if kind == ProviderKind::LocalApi || has_header { keys.optional() } else { keys })
    }

    /// These settings, completed by those of `other`.
    pub(crate) fn or(self, other: &Self) -> Self {
        let (keys, key_setting) = match self.keys.is_empty() {
            true => (other.keys.clone(), other.key_setting.clone()),
            false => (self.keys, self.key_setting),
        };
        Self {
            url: self.url.or_else(|| other.url.clone()),
            dialect: self.dialect.or(other.dialect),
            keys,
            key_setting,
            headers: other.headers.iter().cloned().chain(self.headers).collect(),
        }
    }

    /// The server at `base`, with the account that the keys and headers select.
    pub(crate) fn server(&self, kind: ProviderKind, base: &BaseUrl) -> UpstreamServer {
        let mut keys: Vec<&str> = self.keys.iter().map(|key| key.expose_secret()).collect();
        keys.sort_unstable();
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.expose_secret()))
            .collect();
        headers.sort_unstable();
        // A gateway may have several Azure resources below one address.
        let resource = match self.dialect.unwrap_or_else(|| Dialect::detect(kind, base)) {
            Dialect::Azure => base.path().split_once("/openai").map_or(base.path(), |(resource, _)| resource),
            _ => "",
        };
        let hash = blake3::hash(format!("{keys:?}{headers:?}{resource}").as_bytes());
        UpstreamServer {
            provider: kind,
            address: Some(base.address().into()),
            account: hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        }
    }

    pub(crate) fn protocol(&self, kind: ProviderKind) -> &'static dyn VendorProtocol {
        let detected = || self.url.as_ref().map(|url| Dialect::detect(kind, url));
        vendor_protocol::for_provider(kind, self.dialect.or_else(detected).unwrap_or(Dialect::OpenAi))
    }
}

/// The vendor's default base URL.
pub(crate) fn default_url(kind: ProviderKind, keys: &[SecretString]) -> Option<BaseUrl> {
    let text = match kind {
        ProviderKind::OpenAi => "https://api.openai.com/v1",
        ProviderKind::Cohere => "https://api.cohere.com",
        ProviderKind::Google => "https://generativelanguage.googleapis.com",
        ProviderKind::Mistral => "https://api.mistral.ai/v1",
        // Voyage keys that MongoDB issues work with MongoDB's URL only.
        ProviderKind::Voyage if keys.iter().any(|key| key.expose_secret().starts_with("al-")) => {
            "https://ai.mongodb.com/v1"
        }
        ProviderKind::Voyage => "https://api.voyageai.com/v1",
        ProviderKind::HuggingFace | ProviderKind::Onnx | ProviderKind::LocalApi => return None,
    };
    BaseUrl::parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, keys: &[&str], headers: &[(&str, &str)]) -> UpstreamServer {
        let url = BaseUrl::parse(url).unwrap();
        let endpoint = Endpoint {
            keys: keys.iter().map(|key| (*key).into()).collect(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
            ..Endpoint::default()
        };
        endpoint.server(ProviderKind::OpenAi, &url)
    }

    #[test]
    fn an_account_is_a_set_of_keys_headers_and_an_azure_resource() {
        let plain = server("https://x/v1", &["a", "b"], &[]);
        assert_eq!(plain.address.as_deref(), Some("https://x:443"));
        assert_eq!(
            plain,
            server("https://x/v1/embeddings", &["b", "a"], &[]),
            "neither path nor order matters"
        );
        for other in [
            server("https://x/v1", &["a"], &[]),
            server("https://x/v1", &["a", "b"], &[("OpenAI-Project", "p")]),
        ] {
            assert_eq!(other.address, plain.address);
            assert_ne!(other.account, plain.account);
        }
        let azure = |path: &str| server(&format!("https://gate{path}/openai/deployments/d"), &["a"], &[]);
        assert_eq!(azure("/one"), azure("/one"));
        assert_eq!(azure("/one").address, azure("/two").address);
        assert_ne!(azure("/one").account, azure("/two").account, "each resource has limits of its own");
    }
}
