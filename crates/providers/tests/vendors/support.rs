//! Adapters that send their requests to mock vendors.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use embeddery_core::{
    EmbedError, EmbedRequest, Embedder, Embeddings, Input, ModelRef, Provider as _, ProviderKind,
    RateLimitInfo, RateListener, RequestContext, UpstreamServer,
};
use embeddery_providers::{
    BaseUrl, Catalogue, Endpoint, HttpClient, ModelSettings, Outbound, Vendor, VendorConfig,
};
use embeddery_test_support::vendors::{VendorApi, Vendors, vector};

pub(crate) const KEY: &str = "sk-the-secret-key-of-the-test";

/// Every vendor API, with one of its models.
pub(crate) const APIS: [(VendorApi, &str); 11] = [
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

/// Records the rate limits that responses report.
#[derive(Default)]
pub(crate) struct RecordedLimits(pub(crate) Mutex<Vec<(UpstreamServer, RateLimitInfo)>>);

impl RateListener for RecordedLimits {
    fn observe(&self, server: &UpstreamServer, info: RateLimitInfo) {
        self.0.lock().unwrap().push((server.clone(), info));
    }
}

pub(crate) fn kind(api: VendorApi) -> ProviderKind {
    match api {
        VendorApi::OpenAi | VendorApi::Azure => ProviderKind::OpenAi,
        VendorApi::Cohere => ProviderKind::Cohere,
        VendorApi::Google => ProviderKind::Google,
        VendorApi::Mistral => ProviderKind::Mistral,
        VendorApi::Voyage => ProviderKind::Voyage,
        _ => ProviderKind::LocalApi,
    }
}

/// The endpoint of a mock vendor, with these keys.
pub(crate) fn endpoint(vendors: &Vendors, api: VendorApi, keys: &[&str]) -> Endpoint {
    Endpoint {
        url: Some(BaseUrl::parse(&vendors.base_url(api)).unwrap()),
        dialect: match api {
            VendorApi::Azure => Some("azure".parse().unwrap()),
            VendorApi::Tldw => Some("tldw".parse().unwrap()),
            // All others are detected from the URL.
            _ => None,
        },
        keys: keys.iter().map(|key| (*key).into()).collect(),
        key_setting: "TEST_API_KEY".into(),
        headers: Vec::new(),
    }
}

pub(crate) fn config(kind: ProviderKind, endpoint: Endpoint) -> VendorConfig {
    VendorConfig {
        kind,
        endpoint,
        models: HashMap::new(),
        catalogue: Arc::new(Catalogue::built_in().unwrap()),
        client: Arc::new(HttpClient::new(&Outbound::default()).unwrap()),
        listener: None,
    }
}

pub(crate) async fn open(config: VendorConfig, model: &str) -> Arc<dyn Embedder> {
    Vendor::new(config).unwrap().open(&ModelRef::new(model)).await.unwrap()
}

pub(crate) async fn adapter(vendors: &Vendors, api: VendorApi, model: &str) -> Arc<dyn Embedder> {
    open(config(kind(api), endpoint(vendors, api, &[KEY])), model).await
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

/// Asserts that a response has the vectors of these texts.
pub(crate) fn assert_vectors(response: &Embeddings, texts: &[&str]) {
    assert_eq!(response.data.len(), texts.len() * response.dim);
    for (row, text) in response.rows().zip(texts) {
        for (actual, expected) in row.iter().zip(vector(text, response.dim)) {
            assert!((actual - expected).abs() < 1e-6, "the vector of '{text}' is wrong");
        }
    }
}

pub(crate) fn dimensions(n: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(n)
}
