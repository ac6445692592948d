//! Adapters pointed at the stand-ins.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, Input, ModelRef, Provider as _, ProviderKind,
    RateLimitInfo, RateListener, RequestContext,
};
use embeddery_providers::{
    BaseUrl, Catalogue, Endpoint, HttpClient, ModelSettings, Outbound, Vendor, VendorConfig,
};
use embeddery_test_support::vendors::{VendorApi, Vendors, vector};

pub(crate) const KEY: &str = "sk-the-secret-key-of-the-test";

/// Every form, with a model of it.
pub(crate) const FORMS: [(VendorApi, &str); 11] = [
    (VendorApi::OpenAi, "text-embedding-3-small"),
    (VendorApi::Azure, "my deployment"),
    (VendorApi::Cohere, "embed-v4.0"),
    (VendorApi::Google, "gemini-embedding-001"),
    (VendorApi::Mistral, "mistral-embed"),
    (VendorApi::Voyage, "voyage-4"),
    (VendorApi::LocalOpenAi, "local-model"),
    (VendorApi::Ollama, "nomic-embed-text"),
    (VendorApi::OllamaLegacy, "nomic-embed-text"),
    (VendorApi::Tei, "tei-model"),
    (VendorApi::Tldw, "tldw-model"),
];

/// What a provider's answers said of rates.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<(ProviderKind, RateLimitInfo)>>);

impl RateListener for Heard {
    fn observe(&self, provider: ProviderKind, hint: RateLimitInfo) {
        self.0.lock().unwrap().push((provider, hint));
    }
}

pub(crate) fn kind(form: VendorApi) -> ProviderKind {
    match form {
        VendorApi::OpenAi | VendorApi::Azure => ProviderKind::OpenAi,
        VendorApi::Cohere => ProviderKind::Cohere,
        VendorApi::Google => ProviderKind::Google,
        VendorApi::Mistral => ProviderKind::Mistral,
        VendorApi::Voyage => ProviderKind::Voyage,
        _ => ProviderKind::LocalApi,
    }
}

/// The access to a stand-in, with these keys.
pub(crate) fn access(vendors: &Vendors, form: VendorApi, keys: &[&str]) -> Endpoint {
    Endpoint {
        address: Some(BaseUrl::parse(&vendors.base_url(form)).unwrap()),
        dialect: match form {
            VendorApi::Azure => Some("azure".parse().unwrap()),
            VendorApi::Tldw => Some("tldw".parse().unwrap()),
            // All others are recognised by their address.
            _ => None,
        },
        keys: keys.iter().map(|key| (*key).into()).collect(),
        key_setting: "TEST_API_KEY".into(),
        headers: Vec::new(),
    }
}

pub(crate) fn config(kind: ProviderKind, access: Endpoint) -> VendorConfig {
    VendorConfig {
        kind,
        access,
        models: HashMap::new(),
        catalogue: Arc::new(Catalogue::built_in().unwrap()),
        sender: Arc::new(HttpClient::new(&Outbound::default()).unwrap()),
        listener: None,
    }
}

pub(crate) async fn open(config: VendorConfig, model: &str) -> Arc<dyn Embedder> {
    Vendor::new(config).unwrap().open(&ModelRef::new(model)).await.unwrap()
}

pub(crate) async fn adapter(vendors: &Vendors, form: VendorApi, model: &str) -> Arc<dyn Embedder> {
    open(config(kind(form), access(vendors, form, &[KEY])), model).await
}

pub(crate) fn with_settings(mut config: VendorConfig, model: &str, settings: ModelSettings) -> VendorConfig {
    config.models.insert(ModelRef::new(model), settings);
    config
}

pub(crate) fn request(texts: &[&str]) -> EmbedRequest {
    let inputs: Vec<Input> = texts.iter().map(|text| Input::Text((*text).into())).collect();
    EmbedRequest::with_defaults(inputs, RequestContext::new("test", "test"))
}

pub(crate) async fn embed(embedder: &Arc<dyn Embedder>, texts: &[&str]) -> Result<Embeddings, EmbedError> {
    embedder.embed(request(texts)).await
}

/// Proves that an answer holds the vectors of these texts.
pub(crate) fn assert_right(answer: &Embeddings, texts: &[&str]) {
    assert_eq!(answer.data.len(), texts.len() * answer.dim);
    for (row, text) in answer.rows().zip(texts) {
        for (got, due) in row.iter().zip(vector(text, answer.dim)) {
            assert!((got - due).abs() < 1e-6, "the vector of '{text}' is another");
        }
    }
}

pub(crate) fn length(n: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(n)
}
