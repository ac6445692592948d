//! A model's name becomes a directory with verified files.
//!
//! Places are tried in this order: a local path, the base directory (`<base>/<org>/<name>/`, plain files),
//! the Hugging Face cache (read, never written), the hub. Only [`fetch`](ModelSource::fetch) uses the
//! network, and what it brings appears in the base directory at once and whole: files arrive in a staging
//! directory beside it, are checked against the hub's checksums, and are renamed into place together.

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

pub use crate::{disk::DiskLimits, model_files::Format, retry::RetryPolicy};

/// Where models lie and where they come from.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where a model lies as plain files, `<base>/<org>/<name>/`, and where downloads land. Created by the
    /// first download; may be read-only when nothing is to be downloaded.
    pub base_dir: PathBuf,
    /// The Hugging Face cache (`$HF_HOME/hub`). Read, never written.
    pub hub_cache: Option<PathBuf>,
    /// The hub's address, `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// The hub's access token, for private and gated models.
    pub token: Option<SecretString>,
    /// Whether the network is forbidden.
    pub offline: bool,
    /// How much of the disk downloads may take.
    pub disk: DiskLimits,
    /// In which form models have their weights. Graphs are fetched to a directory of their own, `<base>/onnx_models/`,
    /// and are used as found in the base directory, too.
    pub format: Format,
}

/// Where graphs are fetched to, as the replaced service called it.
const ONNX_DIRECTORY: &str = "onnx_models";

/// The models on this machine and the way to more of them.
#[derive(Debug)]
pub struct ModelStore {
    base: ModelsDir,
    /// Where models may lie besides; nothing is fetched there.
    beside: Option<ModelsDir>,
    format: Format,
    disk: DiskLimits,
    cache: Option<HubCache>,
    endpoint: Url,
    token: Option<SecretString>,
    offline: bool,
    retry: RetryPolicy,
}

impl ModelStore {
    /// Checks the configuration. Touches neither the network nor, beyond a look at the base directory, the disk.
    ///
    /// # Errors
    /// [`Io`](SourceErrorKind::Io) when the base directory is a file; [`Unreachable`](SourceErrorKind::Unreachable)
    /// when the endpoint is no HTTP address.
    pub fn new(config: StoreConfig) -> Result<Self, SourceError> {
        let plain = ModelsDir::new(config.base_dir.clone())?;
        let (base, beside) = match config.format {
            Format::Safetensors => (plain, None),
            Format::Onnx(_) => (ModelsDir::new(config.base_dir.join(ONNX_DIRECTORY))?, Some(plain)),
        };
        Ok(Self {
            base,
            beside,
            format: config.format,
            disk: config.disk,
            cache: config.hub_cache.map(HubCache::new),
            endpoint: hub::parse_endpoint(&config.endpoint)?,
            token: config.token,
            offline: config.offline,
            retry: RetryPolicy::default(),
        })
    }

    /// The same store with other patience.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// A hub model that is on this machine.
    fn find_hub_model(
        &self,
        name: &HubName,
        revision: Option<&Revision>,
    ) -> Result<Option<PathBuf>, SourceError> {
        let weights = self.format.weights(&name.to_string());
        for base in std::iter::once(&self.base).chain(&self.beside) {
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
        // Another process may have fetched it while this one waited.
        if let Some(directory) = self.find_hub_model(&name, revision.as_ref())? {
            return Ok(directory);
        }
        let hub = Hub::connect(self.endpoint.clone(), self.token.as_ref())?;
        let order = fetch::ModelDownload {
            base: &self.base,
            hub: &hub,
            retry: self.retry,
            name: &name,
            progress,
            weights: self.format.weights(&model.name),
            disk: self.disk,
            lock,
        };
        order.run(&revision.unwrap_or_default()).await.map_err(|error| self.with_advice(error, &name))
    }

    fn offline_error(&self, model: &ModelRef, name: &HubName) -> SourceError {
        let base = self.base.directory(name);
        let cache = self.cache.as_ref().map(|cache| format!(" and {}", cache.directory(name).display()));
        SourceError::new(
            SourceErrorKind::Offline,
            format!(
                "model '{model}' is not here as a whole (looked in {}{}), and downloads are off (HF_HUB_OFFLINE); \
                 put its files there or allow downloads",
                base.display(),
                cache.unwrap_or_default()
            ),
        )
    }

    fn with_advice(&self, mut error: SourceError, name: &HubName) -> SourceError {
        if error.kind == SourceErrorKind::Unreachable {
            error.message.push_str(&format!(
                "; a mirror can be set by HF_ENDPOINT, or put the model's files into {} (and set HF_HUB_OFFLINE=1 \
                 when there is no network)",
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
        names.extend(self.beside.iter().flat_map(ModelsDir::list));
        names.extend(self.cache.iter().flat_map(|cache| cache.list(&self.format)));
        if matches!(self.format, Format::Onnx(_)) {
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
