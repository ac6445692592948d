//! Tests of the local provider with real model files, and a directory as the source of models.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embeddings, ErrorKind, Input, ModelRef, ModelSource, ModelState,
    Progress, Provider as _, RequestContext, SourceError, SourceErrorKind, Truncate,
};
use embeddery_engine::Precision;
use embeddery_providers::local::{
    Local, LocalConfig, MemoryBudget, MemoryLimits, ResourcesConfig, SharedResources,
};
use embeddery_test_support::tiny::Tiny;

const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// A source of the models below one directory. Downloads fail.
struct Directory {
    base: PathBuf,
    fetches: AtomicUsize,
}

impl ModelSource for Directory {
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError> {
        let dir = self.base.join(&*model.name);
        Ok(dir.is_dir().then_some(dir))
    }

    fn fetch<'a>(
        &'a self,
        model: &'a ModelRef,
        _: &'a Progress,
    ) -> BoxFuture<'a, Result<PathBuf, SourceError>> {
        self.fetches.fetch_add(1, SeqCst);
        let error = SourceError::new(SourceErrorKind::NotFound, format!("{model} does not exist"));
        Box::pin(async { Err(error) })
    }

    fn list(&self) -> Vec<String> {
        vec![MINILM.into()]
    }
}

fn models() -> PathBuf {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/embedding_models_data");
    assert!(base.join(MINILM).is_dir(), "`make test` fetches the model");
    base
}

fn provider(base: &Path, auto_download: bool) -> (Local, Arc<Directory>) {
    provider_with(base, auto_download, Duration::ZERO)
}

fn provider_with(base: &Path, auto_download: bool, unload_after: Duration) -> (Local, Arc<Directory>) {
    let source = Arc::new(Directory { base: base.into(), fetches: AtomicUsize::new(0) });
    let resources = ResourcesConfig {
        threads: NonZeroUsize::new(2).unwrap(),
        memory: MemoryBudget::new(MemoryLimits::default(), Duration::ZERO),
        queue_tokens: 1_000_000,
        unload_after,
    };
    let config = LocalConfig {
        resources: SharedResources::new(resources).unwrap(),
        source: Arc::clone(&source) as Arc<dyn ModelSource>,
        auto_download,
        models: Default::default(),
    };
    (Local::new(config, Precision::F32), source)
}

fn request(texts: &[&str]) -> EmbedRequest {
    let inputs: Vec<_> = texts.iter().map(|text| Input::Text((*text).into())).collect();
    EmbedRequest::with_defaults(inputs, RequestContext::new("1", "test"))
}

async fn embed(local: &Local, model: &str, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
    local.open(&ModelRef::new(model)).await?.embed(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_get_their_own_vectors() {
    let (local, _) = provider(&models(), false);
    let local = Arc::new(local);
    let texts: Vec<String> = (0..24).map(|n| format!("caller {n} {}", "says more ".repeat(n))).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = embed(&local, MINILM, request(&all)).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for (index, text) in texts.into_iter().enumerate() {
        let local = Arc::clone(&local);
        callers.spawn(async move { (index, embed(&local, MINILM, request(&[&text])).await.unwrap()) });
    }
    while let Some(done) = callers.join_next().await {
        let (index, alone) = done.unwrap();
        assert_eq!(alone.data, together.rows().nth(index).unwrap());
        assert_eq!(alone.tokens[0], together.tokens[index]);
        assert_eq!(alone.space, together.space);
    }
}

#[tokio::test]
async fn vectors_without_normalization_have_the_same_direction() {
    let (local, _) = provider(&models(), false);
    let unit = embed(&local, MINILM, request(&["hello"])).await.unwrap().data;
    let raw =
        embed(&local, MINILM, EmbedRequest { normalize: false, ..request(&["hello"]) }).await.unwrap().data;
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 1e-3, "raw has length {length}");
    assert!(unit.iter().zip(&raw).all(|(u, r)| (u - r / length).abs() < 1e-6));
}

#[tokio::test]
async fn all_too_long_texts_are_named() {
    let (local, _) = provider(&models(), false);
    let long = "word ".repeat(300);
    let request =
        EmbedRequest { truncate: Some(Truncate::None), ..request(&["short", &long, "short", &long]) };
    let error = embed(&local, MINILM, request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InputTooLong);
    let named: Vec<_> = error.inputs.iter().map(|fault| (fault.index, fault.tokens)).collect();
    assert_eq!(named, [(1, Some(302)), (3, Some(302))]);
}

#[tokio::test]
async fn a_damaged_model_fails_alone_with_a_reason() {
    let base = tempfile::tempdir().unwrap();
    for name in ["good", "bad"] {
        copy(&models().join(MINILM), &base.path().join(name));
    }
    let weights = base.path().join("bad/model.safetensors");
    let size = fs::metadata(&weights).unwrap().len();
    fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(size / 2).unwrap();
    let (local, _) = provider(base.path(), false);
    let error = embed(&local, "bad", request(&["x"])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ModelUnusable);
    assert!(error.message.contains("model.safetensors"), "{}", error.message);
    assert!(matches!(local.state(&ModelRef::new("bad")), Some(ModelState::Failed { .. })));
    embed(&local, "good", request(&["x"])).await.unwrap();
    // After a repair on disk the model works without a restart.
    fs::copy(base.path().join("good/model.safetensors"), &weights).unwrap();
    embed(&local, "bad", request(&["x"])).await.unwrap();
    assert_eq!(local.state(&ModelRef::new("bad")), Some(ModelState::Loaded));
}

#[tokio::test]
async fn a_missing_model_is_requested_once_per_cooldown() {
    let (local, source) = provider(&models(), true);
    for _ in 0..3 {
        let error = embed(&local, "no/such", request(&["x"])).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ModelNotFound);
        assert!(error.message.contains("no/such does not exist"));
    }
    assert_eq!(source.fetches.load(SeqCst), 1, "the error is kept for the cooldown");
    let (closed, source) = provider(&models(), false);
    let error = embed(&closed, "no/such", request(&["x"])).await.unwrap_err();
    assert!(error.message.contains("models pull no/such"), "{}", error.message);
    assert_eq!(source.fetches.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_does_not_delay_others() {
    let (local, _) = provider(&models(), false);
    let embedder = local.open(&ModelRef::new(MINILM)).await.unwrap();
    embedder.warm_up().await.unwrap();
    let long = "many words in a text ".repeat(60);
    let heavy: Vec<&str> = vec![&long; 2000];
    let cancelled = tokio::time::timeout(Duration::from_millis(1), embedder.embed(request(&heavy))).await;
    assert!(cancelled.is_err());
    // The cancelled request has half a million tokens. If they were computed, this request would exceed the timeout.
    tokio::time::timeout(Duration::from_secs(40), embedder.embed(request(&["quick"])))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_model_is_unloaded_and_loaded_again_when_needed() {
    let base = tempfile::tempdir().unwrap();
    Tiny::default().write(base.path(), "tiny").unwrap();
    let (local, _) = provider_with(base.path(), false, Duration::from_secs(300));
    let tiny = ModelRef::new("tiny");
    let first = embed(&local, "tiny", request(&["w1 w2"])).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(299)).await;
        assert_eq!(local.state(&tiny), Some(ModelState::Loaded), "used less than five minutes ago");
        embed(&local, "tiny", request(&["w3"])).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(local.state(&tiny), Some(ModelState::Unloaded));
    let again = embed(&local, "tiny", request(&["w1 w2"])).await.unwrap();
    assert_eq!((again.data, again.space), (first.data, first.space));
    assert_eq!(local.state(&tiny), Some(ModelState::Loaded));
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_complete_when_their_model_is_unloaded() {
    let base = tempfile::tempdir().unwrap();
    Tiny::default().write(base.path(), "tiny").unwrap();
    let (local, _) = provider(base.path(), false);
    let tiny = ModelRef::new("tiny");
    let embedder = local.open(&tiny).await.unwrap();
    embedder.warm_up().await.unwrap();
    let texts: Vec<String> = (0..500).map(|n| format!("w{n} w{}", n + 1)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut running = embedder.embed(request(&texts));
    // The first poll starts the request. It holds the model from then on.
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(running.as_mut().poll(cx))).await.is_pending());
    assert!(local.unload(&tiny).await.unwrap());
    assert_eq!(running.await.unwrap().rows().count(), 500);
    assert!(!local.unload(&tiny).await.unwrap(), "no model is loaded");
}

#[tokio::test]
async fn the_memory_of_a_model_is_estimated_before_it_is_loaded() {
    let (local, _) = provider(&models(), false);
    let described = local.describe(&ModelRef::new(MINILM)).await.unwrap().unwrap();
    let directory = models().join(MINILM);
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let files = embeddery_engine::ModelFiles::open(&directory).unwrap();
        let options = embeddery_engine::LoadOptions { precision, ..Default::default() };
        let weights = files.load(&options).unwrap().weight_bytes() as u64;
        let estimate = files.memory(&options, 2).unwrap();
        assert!(
            (weights..weights * 2).contains(&estimate),
            "{precision}: estimate {estimate}, weights {weights}"
        );
    }
    assert_eq!(local.state(&ModelRef::new(MINILM)), Some(ModelState::OnDisk), "the model was not loaded");
    let embedded = embed(&local, MINILM, request(&["x"])).await.unwrap();
    assert_eq!((embedded.space, embedded.dim), (described.space, described.info.dimensions));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
