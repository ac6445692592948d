#![doc = include_str!("../README.md")]

mod checksum;
mod disk;
mod download;
mod fetch;
mod hub;
mod hub_cache;
mod lock;
mod model_files;
mod model_name;
mod models_dir;
mod partial_file;
mod retry;
mod sidecar;

use std::path::PathBuf;

use embeddery_core::{BoxFuture, ModelRef, ModelSource, Progress, SourceError, SourceErrorKind};
use reqwest::Url;
use secrecy::SecretString;

use crate::{
    hub::Hub,
    hub_cache::HubCache,
    model_name::{HubName, Name, Revision},
    models_dir::ModelsDir,
};

pub use crate::{disk::DiskLimits, model_files::WeightsFormat, retry::RetryPolicy};

/// Where models are stored and where they are downloaded from.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The base directory. It holds models as plain files, `<base>/<org>/<name>/`, and receives downloads. The first
    /// download creates it. It may be read-only if nothing is downloaded.
    pub base_dir: PathBuf,
    /// The Hugging Face cache (`$HF_HOME/hub`). It is read and never written.
    pub hub_cache: Option<PathBuf>,
    /// The hub's URL, `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// The hub's access token, for private and gated models.
    pub token: Option<SecretString>,
    /// Whether downloads are forbidden.
    pub offline: bool,
    /// How much disk space downloads may use.
    pub disk: DiskLimits,
    /// The file format of the weights. ONNX graphs are downloaded to `<base>/onnx_models/`; graphs in the base directory
    /// itself are used, too.
    pub format: WeightsFormat,
}

/// The subdirectory that ONNX graphs are downloaded to. The service that Embeddery replaces uses the same name.
const ONNX_DIRECTORY: &str = "onnx_models";

/// Finds models on this machine and downloads missing ones.
#[derive(Debug)]
pub struct ModelStore {
    base: ModelsDir,
    /// A second directory that models are looked up in. Nothing is downloaded to it.
    fallback: Option<ModelsDir>,
    format: WeightsFormat,
    disk: DiskLimits,
    cache: Option<HubCache>,
    endpoint: Url,
    token: Option<SecretString>,
    offline: bool,
    retry: RetryPolicy,
}

impl ModelStore {
    /// Checks the configuration. Reads the metadata of the base directory and uses no network.
    ///
    /// # Errors
    /// [`Io`](SourceErrorKind::Io) if the base directory is a file; [`Unreachable`](SourceErrorKind::Unreachable)
    /// if the endpoint is not an HTTP URL.
    pub fn new(config: StoreConfig) -> Result<Self, SourceError> {
        let plain = ModelsDir::new(config.base_dir.clone())?;
        let (base, fallback) = match config.format {
            WeightsFormat::Safetensors => (plain, None),
            WeightsFormat::Onnx(_) => (ModelsDir::new(config.base_dir.join(ONNX_DIRECTORY))?, Some(plain)),
        };
        Ok(Self {
            base,
            fallback,
            format: config.format,
            disk: config.disk,
            cache: config.hub_cache.map(HubCache::new),
            endpoint: hub::parse_endpoint(&config.endpoint)?,
            token: config.token,
            offline: config.offline,
            retry: RetryPolicy::default(),
        })
    }

    /// The same store with another retry policy.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// The directory of a hub model that is on this machine.
    fn find_hub_model(
        &self,
        name: &HubName,
        revision: Option<&Revision>,
    ) -> Result<Option<PathBuf>, SourceError> {
        let weights = self.format.weights(&name.to_string());
        for base in std::iter::once(&self.base).chain(&self.fallback) {
            if let Some(directory) = base.find(name, revision)?.filter(|found| weights.may_be_in(found)) {
                return Ok(Some(directory));
            }
        }
        Ok(self.cache.as_ref().and_then(|cache| cache.find(name, revision, weights)))
    }

    async fn fetch_model(&self, model: &ModelRef, progress: &Progress) -> Result<PathBuf, SourceError> {
        let (name, revision) = match parse(model)? {
            (Name::Path(directory), _) => return model_files::local_directory(directory),
            (Name::Hub(name), revision) => (name, revision),
        };
        if let Some(directory) = self.find_hub_model(&name, revision.as_ref())? {
            return Ok(directory);
        }
        if self.offline {
            return Err(self.offline_error(model, &name));
        }
        let lock = self.base.lock(&name).await?;
        // Another process may have downloaded the model while this one waited for the lock.
        if let Some(directory) = self.find_hub_model(&name, revision.as_ref())? {
            return Ok(directory);
        }
        let hub = Hub::connect(self.endpoint.clone(), self.token.as_ref())?;
        let download = fetch::ModelDownload {
            base: &self.base,
            hub: &hub,
            retry: self.retry,
            name: &name,
            progress,
            weights: self.format.weights(&model.name),
            disk: self.disk,
            lock,
        };
        download.run(&revision.unwrap_or_default()).await.map_err(|error| self.with_advice(error, &name))
    }

    fn offline_error(&self, model: &ModelRef, name: &HubName) -> SourceError {
        let base = self.base.directory(name);
        let cache = self.cache.as_ref().map(|cache| format!(" and {}", cache.directory(name).display()));
        SourceError::new(
            SourceErrorKind::Offline,
            format!(
                "model '{model}' is not complete on this machine (looked in {}{}), and downloads are off (HF_HUB_OFFLINE); \
                 put its files there or allow downloads",
                base.display(),
                cache.unwrap_or_default()
            ),
        )
    }

    fn with_advice(&self, mut error: SourceError, name: &HubName) -> SourceError {
        if error.kind == SourceErrorKind::Unreachable {
            error.message.push_str(&format!(
                "; set HF_ENDPOINT to a mirror, or put the model's files into {} (and set HF_HUB_OFFLINE=1 if there is no \
                 network)",
                self.base.directory(name).display()
            ));
        }
        error
    }
}

impl ModelSource for ModelStore {
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError> {
        match parse(model)? {
            (Name::Path(directory), _) => model_files::local_directory(directory).map(Some),
            (Name::Hub(name), revision) => self.find_hub_model(&name, revision.as_ref()),
        }
    }

    fn fetch<'a>(
        &'a self,
        model: &'a ModelRef,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<PathBuf, SourceError>> {
        Box::pin(self.fetch_model(model, progress))
    }

    fn list(&self) -> Vec<String> {
        let mut names = self.base.list();
        names.extend(self.fallback.iter().flat_map(ModelsDir::list));
        names.extend(self.cache.iter().flat_map(|cache| cache.list(&self.format)));
        if matches!(self.format, WeightsFormat::Onnx(_)) {
            names.retain(|name| matches!(self.find(&ModelRef::new(name.as_str())), Ok(Some(_))));
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn parse(model: &ModelRef) -> Result<(Name, Option<Revision>), SourceError> {
    Ok((Name::parse(&model.name)?, model.revision.as_deref().map(Revision::parse).transpose()?))
}
