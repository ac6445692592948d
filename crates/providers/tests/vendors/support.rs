//! Adapters pointed at the stand-ins.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use embeddery_core::{
    Context, EmbedError, EmbedRequest, Embedder, Embeddings, Input, ModelRef, Provider as _, ProviderKind,
    RateHint, RateListener,
};
use embeddery_providers::{
    Access, Address, Catalogue, ModelSettings, Outbound, Sender, Vendor, VendorConfig,
};
use embeddery_test_support::vendors::{Form, Vendors, vector};

pub(crate) const KEY: &str = "sk-the-secret-key-of-the-test";

/// Every form, with a model of it.
pub(crate) const FORMS: [(Form, &str); 11] = [
    (Form::OpenAi, "text-embedding-3-small"),
    (Form::Azure, "my deployment"),
    (Form::Cohere, "embed-v4.0"),
    (Form::Google, "gemini-embedding-001"),
    (Form::Mistral, "mistral-embed"),
    (Form::Voyage, "voyage-4"),
    (Form::LocalOpenAi, "local-model"),
    (Form::Ollama, "nomic-embed-text"),
    (Form::OllamaLegacy, "nomic-embed-text"),
    (Form::Tei, "tei-model"),
    (Form::Tldw, "tldw-model"),
];

/// What a provider's answers said of rates.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<(ProviderKind, RateHint)>>);

impl RateListener for Heard {
    fn hear(&self, provider: ProviderKind, hint: RateHint) {
        self.0.lock().unwrap().push((provider, hint));
    }
}

pub(crate) fn kind(form: Form) -> ProviderKind {
    match form {
        Form::OpenAi | Form::Azure => ProviderKind::OpenAi,
        Form::Cohere => ProviderKind::Cohere,
        Form::Google => ProviderKind::Google,
        Form::Mistral => ProviderKind::Mistral,
        Form::Voyage => ProviderKind::Voyage,
        _ => ProviderKind::LocalApi,
    }
}

/// The access to a stand-in, with these keys.
pub(crate) fn access(vendors: &Vendors, form: Form, keys: &[&str]) -> Access {
    Access {
        address: Some(Address::parse(&vendors.base_url(form)).unwrap()),
        dialect: match form {
            Form::Azure => Some("azure".parse().unwrap()),
            Form::Tldw => Some("tldw".parse().unwrap()),
            // All others are recognised by their address.
            _ => None,
        },
        keys: keys.iter().map(|key| (*key).into()).collect(),
        key_setting: "TEST_API_KEY".into(),
        headers: Vec::new(),
    }
}

pub(crate) fn config(kind: ProviderKind, access: Access) -> VendorConfig {
    VendorConfig {
        kind,
        access,
        models: HashMap::new(),
        catalogue: Arc::new(Catalogue::built_in().unwrap()),
        sender: Arc::new(Sender::new(&Outbound::default()).unwrap()),
        listener: None,
    }
}

pub(crate) async fn open(config: VendorConfig, model: &str) -> Arc<dyn Embedder> {
    Vendor::new(config).unwrap().open(&ModelRef::new(model)).await.unwrap()
}

pub(crate) async fn adapter(vendors: &Vendors, form: Form, model: &str) -> Arc<dyn Embedder> {
    open(config(kind(form), access(vendors, form, &[KEY])), model).await
}

pub(crate) fn with_settings(mut config: VendorConfig, model: &str, settings: ModelSettings) -> VendorConfig {
    config.models.insert(ModelRef::new(model), settings);
    config
}

pub(crate) fn request(texts: &[&str]) -> EmbedRequest {
    let inputs: Vec<Input> = texts.iter().map(|text| Input::Text((*text).into())).collect();
    EmbedRequest::plain(inputs, Context::new("test", "test"))
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
