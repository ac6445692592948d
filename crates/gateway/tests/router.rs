//! The rules of model choice, with a provider that opens any model.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Input, ModelInfo,
    ModelRef, ModelState, ModelStatus, Provider, ProviderKind, RequestContext, TokenCount,
};
use embeddery_gateway::{
    ConfiguredModel, FallbackModels, Metrics, ModelSelector, Policy, Router, RouterConfig, Stack,
    TokenDecoder, TokenEncoding, VendorModel,
};
use prometheus_client::registry::Registry;

/// A provider that opens any model and counts how often.
struct AnyModel(AtomicUsize);

struct OpenedModel(Arc<ModelInfo>, CallLimits);

impl Embedder for OpenedModel {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.0
    }

    fn limits(&self) -> &CallLimits {
        &self.1
    }

    fn count_tokens(&self, _: &str) -> TokenCount {
        TokenCount::Exact(1)
    }

    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async { Err(EmbedError::internal("not called in this test")) })
    }
}

impl Provider for AnyModel {
    fn kind(&self) -> ProviderKind {
        ProviderKind::HuggingFace
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        self.0.fetch_add(1, SeqCst);
        let info = ModelInfo {
            name: Arc::clone(&model.name),
            provider: self.kind(),
            dimensions: None,
            max_tokens: None,
            matryoshka: false,
        };
        Box::pin(async {
            Ok(Arc::new(OpenedModel(Arc::new(info), CallLimits::default())) as Arc<dyn Embedder>)
        })
    }

    fn download<'a>(&'a self, _: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self, _: &ModelRef) -> Option<ModelState> {
        Some(ModelState::OnDisk)
    }

    fn models(&self) -> Vec<ModelStatus> {
        let on_disk = |name: &str| ModelStatus { name: name.into(), state: ModelState::OnDisk };
        vec![on_disk("org/other"), on_disk("sentence-transformers/all-MiniLM-L6-v2")]
    }
}

/// A stack without wrappers.
struct NoWrappers;

impl Stack for NoWrappers {
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, _: &str) -> Arc<dyn Embedder> {
        adapter
    }

    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        _: Option<FallbackModels>,
        _: &str,
    ) -> Arc<dyn Embedder> {
        model
    }
}

fn router(default_model: &str) -> (Router, Arc<AnyModel>) {
    router_with(default_model, Policy::default(), &mut Registry::default())
}

fn router_with(default_model: &str, policy: Policy, registry: &mut Registry) -> (Router, Arc<AnyModel>) {
    let provider = Arc::new(AnyModel(AtomicUsize::new(0)));
    let entry = |id: &str, provider, name: &str| ConfiguredModel::new(id, provider, ModelRef::new(name));
    let vendor_model = |provider, name: &str, listed| VendorModel { provider, name: name.into(), listed };
    let router = Router::new(RouterConfig {
        providers: vec![Arc::clone(&provider) as Arc<dyn Provider>],
        models: vec![
            entry("notes", ProviderKind::HuggingFace, "/srv/models/notes"),
            entry("small", ProviderKind::OpenAi, "text-embedding-3-small"),
        ],
        default_model: default_model.into(),
        vendor_models: vec![
            vendor_model(ProviderKind::Voyage, "voyage-4", true),
            vendor_model(ProviderKind::Cohere, "embed-v4.0", false),
            vendor_model(ProviderKind::OpenAi, "text-embedding-3-small", true),
        ],
        stack: Arc::new(NoWrappers),
        policy,
        decoder: Arc::new(TokenDecoder::new(TokenEncoding::Cl100k)),
        metrics: Metrics::new(registry),
    });
    (router, provider)
}

#[test]
fn a_model_of_the_catalogue_needs_no_provider() {
    use ProviderKind::{Cohere, OpenAi, Voyage};
    let resolved = |model, provider| resolve(model, provider).unwrap();
    assert_eq!(resolved("voyage-4", None), (Voyage, "voyage-4".into()));
    assert_eq!(resolved("embed-v4.0", None), (Cohere, "embed-v4.0".into()));
    // A named provider beats the catalogue.
    assert_eq!(resolved("voyage-4", Some(OpenAi)), (OpenAi, "voyage-4".into()));
    assert_eq!(resolved("openai:voyage-4", None), (OpenAi, "voyage-4".into()));
    let near = resolve("voyage4", None).unwrap_err();
    assert!(near.message.contains("'voyage-4'"), "{near}");
}

#[test]
fn lists_show_only_models_of_vendors_with_a_key() {
    let (router, _) = router("all-MiniLM-L6-v2");
    let ids: Vec<_> = router.models().into_iter().map(|model| (model.id, model.state)).collect();
    assert!(ids.contains(&("voyage-4".into(), None)));
    assert!(!ids.iter().any(|(id, _)| id == "embed-v4.0"), "its vendor has no key");
    // A configured model is listed once, under its id.
    assert!(!ids.iter().any(|(id, _)| id == "text-embedding-3-small"));
}

fn resolve(model: &str, provider: Option<ProviderKind>) -> Result<(ProviderKind, String), EmbedError> {
    let (router, _) = router("all-MiniLM-L6-v2");
    router
        .resolve(ModelSelector { model: Some(model), provider })
        .map(|resolved| (resolved.provider, resolved.model.name.to_string()))
}

#[test]
fn a_name_is_resolved_by_the_rules_in_their_order() {
    use ProviderKind::{Cohere, HuggingFace, OpenAi};
    let resolved = |model, provider| resolve(model, provider).unwrap();
    assert_eq!(resolved("notes", None), (HuggingFace, "/srv/models/notes".into()));
    assert_eq!(resolved("text-embedding-3-small", None), (OpenAi, "text-embedding-3-small".into()));
    assert_eq!(resolved("openai:small", None), (OpenAi, "text-embedding-3-small".into()));
    assert_eq!(resolved("cohere:embed-v4.0", None), (Cohere, "embed-v4.0".into()));
    assert_eq!(resolved("embed-v4.0", Some(Cohere)), (Cohere, "embed-v4.0".into()));
    assert_eq!(
        resolved("huggingface:a/b", Some(Cohere)),
        (HuggingFace, "a/b".into()),
        "a prefix beats the header"
    );
    assert_eq!(
        resolved("all-MiniLM-L6-v2", None),
        (HuggingFace, "sentence-transformers/all-MiniLM-L6-v2".into())
    );
    assert_eq!(resolved("BAAI/bge-small-en-v1.5", None), (HuggingFace, "BAAI/bge-small-en-v1.5".into()));
}

#[test]
fn an_unknown_name_suggests_similar_names_and_a_path_fails() {
    let message = |model| resolve(model, None).unwrap_err().message;
    assert!(message("all_minilm").contains("did you mean 'sentence-transformers/all-MiniLM-L6-v2'"));
    assert!(message("qqqq").contains("the default is 'all-MiniLM-L6-v2'"));
    for path in ["/etc/passwd", "../../etc", "huggingface:/etc", "a/../../b", "~/x"] {
        assert!(resolve(path, None).is_err(), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_default_model_is_an_error_of_the_request_only() {
    let (router, _) = router("unknown");
    let error = router.resolve(ModelSelector { model: None, provider: None }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ModelNotFound);
    assert!(router.models().iter().all(|model| !model.default));
    assert_eq!(router.default_state(), None);
}

#[tokio::test]
async fn a_model_is_opened_once_and_its_stack_is_shared() {
    let (router, provider) = router("all-MiniLM-L6-v2");
    let select = |model| ModelSelector { model, provider: None };
    let first = router.open(select(None)).await.unwrap();
    let second = router.open(select(Some("sentence-transformers/all-MiniLM-L6-v2"))).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(provider.0.load(SeqCst), 1);
    let Err(error) = router.open(select(Some("small"))).await else { panic!("opened") };
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[test]
fn the_list_shows_configured_models_first_and_marks_the_default() {
    let (router, _) = router("all-MiniLM-L6-v2");
    let ids: Vec<_> = router.models().into_iter().map(|model| (model.id, model.default)).collect();
    let expected = [
        ("notes", false),
        ("small", false),
        ("org/other", false),
        ("sentence-transformers/all-MiniLM-L6-v2", true),
        ("voyage-4", false),
    ];
    assert_eq!(ids, expected.map(|(id, default)| (id.to_owned(), default)));
}

#[tokio::test]
async fn a_rejected_model_name_creates_no_label() {
    let mut registry = Registry::default();
    let policy = Policy { enforced: true, providers: Some(vec![ProviderKind::OpenAi]), models: None };
    let (router, _) = router_with("all-MiniLM-L6-v2", policy, &mut registry);
    for model in ["small", "made/up", "all-MiniLM-L6-v2", "notes"] {
        let request = EmbedRequest::with_defaults([Input::Text("a".into())], RequestContext::new("t", "r"));
        let selector = ModelSelector { model: Some(model), provider: None };
        router.embed(selector, request).await.unwrap_err();
    }
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
    let count = |labels: &str| {
        let line = metrics.lines().find(|line| line.contains("requests_total{") && line.contains(labels));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert!(!metrics.contains("made/up"), "{metrics}");
    let rejected = |model| count(&format!("model=\"{model}\",status=\"invalid\""));
    for model in ["other", "sentence-transformers/all-MiniLM-L6-v2", "/srv/models/notes"] {
        assert_eq!(rejected(model).as_deref(), Some("1"), "{model}: {metrics}");
    }
    assert!(metrics.contains(r#"model="other",policy_type="provider""#), "{metrics}");
}
