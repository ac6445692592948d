//! A mock hub with one small model, a directory to download it into, and stores that connect the two.

use std::{fs, path::PathBuf, time::Duration};

use embeddery_core::{ModelRef, ModelSource as _, Progress, SourceError};
use embeddery_model_store::{DiskLimits, ModelStore, RetryPolicy, StoreConfig, WeightsFormat};
use embeddery_test_support::hub::Hub;
use tempfile::TempDir;

pub(crate) const NAME: &str = "org/model";
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Large enough for several chunks of a response.
pub(crate) const WEIGHTS_LEN: usize = 300_000;

pub(crate) struct Fixture {
    pub(crate) hub: Hub,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let hub = Hub::start().await;
        hub.publish(NAME, "main", files(1));
        Self { hub, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig {
            base_dir: self.base(),
            hub_cache: Some(self.dir.path().join("hub")),
            endpoint: self.hub.url(),
            token: None,
            offline: false,
            disk: DiskLimits::default(),
            format: WeightsFormat::default(),
        }
    }

    pub(crate) fn store(&self) -> ModelStore {
        store(self.config())
    }

    pub(crate) async fn fetch(&self) -> Result<PathBuf, SourceError> {
        fetch(&self.store(), NAME).await
    }

    /// Asserts that all files of the model are in the base directory with the right content.
    pub(crate) fn assert_complete(&self, variant: u8) {
        for (path, content) in files(variant).into_iter().filter(|(path, _)| !IGNORED.contains(path)) {
            assert!(fs::read(self.base().join(NAME).join(path)).unwrap() == content, "{path} differs");
        }
    }

    /// The `Range` headers of requests for the weights at the storage host.
    pub(crate) fn weight_ranges(&self) -> Vec<Option<String>> {
        let requests = self.hub.requests().into_iter();
        requests
            .filter(|request| request.storage && request.path == WEIGHTS)
            .map(|request| request.range)
            .collect()
    }
}

/// A store that does not pause between attempts.
pub(crate) fn store(config: StoreConfig) -> ModelStore {
    let policy = RetryPolicy { initial_backoff: Duration::ZERO, ..RetryPolicy::default() };
    ModelStore::new(config).unwrap().with_retry(policy)
}

pub(crate) async fn fetch(store: &ModelStore, name: &str) -> Result<PathBuf, SourceError> {
    store.fetch(&ModelRef::new(name), &Progress::default()).await
}

pub(crate) fn at(revision: &str) -> ModelRef {
    ModelRef { revision: Some(revision.into()), ..ModelRef::new(NAME) }
}

/// Files that the repository has and an encoder does not need.
pub(crate) const IGNORED: [&str; 3] = ["README.md", "pytorch_model.bin", "onnx/model.onnx"];

/// The files of a repository. Variants differ in every file.
pub(crate) fn files(variant: u8) -> Vec<(&'static str, Vec<u8>)> {
    let json = |text: &str| format!("{{\"variant\":{variant},\"x\":\"{text}\"}}").into_bytes();
    let modules = r#"[{"path":"","type":"sentence_transformers.models.Transformer"},
        {"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
    vec![
        ("config.json", json("config")),
        ("tokenizer.json", json("tokenizer")),
        ("modules.json", modules.as_bytes().to_vec()),
        ("1_Pooling/config.json", json("pooling")),
        (WEIGHTS, bytes(WEIGHTS_LEN, variant)),
        ("README.md", b"# A model".to_vec()),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("onnx/model.onnx", b"onnx".to_vec()),
    ]
}

/// Bytes without a period, so that a chunk at the wrong offset is detected.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}
