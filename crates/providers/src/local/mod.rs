//! Models that run in this process. [`Local`] is the provider `huggingface`, whose models run on Embeddery's engine, and
//! the base of the provider `onnx`.
//!
//! `downloads` fetches models in the background. `model_instance` loads a model when it is needed, within the limits of
//! `memory_budget`. `tokenize` tokenizes the texts of a request. `batcher` forms batches from all waiting requests. A
//! `backend` computes the vectors. A model is downloaded once and loaded at most once at a time. One thread per model
//! computes its batches, on the thread pool that all models share.

pub(crate) mod backend;
mod batcher;
mod downloads;
mod memory_budget;
mod model;
mod model_instance;
mod shared_resources;
mod tokenize;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, Embedder, ErrorKind, Fault, ModelDescription, ModelRef, ModelSource, ModelState,
    ModelStatus, Provider, ProviderKind, Retry, SourceError, SourceErrorKind,
};
use embeddery_engine::Precision;

use backend::{ModelFormat, Safetensors};
use downloads::{DownloadStatus, Downloads};
use model::{LocalModel, OpenedModel};

pub use memory_budget::{MemoryBudget, MemoryLimits};
pub use shared_resources::{ResourcesConfig, SharedResources};

/// The configuration of a local provider.
pub struct LocalConfig {
    /// Resources that all local providers share.
    pub resources: Arc<SharedResources>,
    /// Finds and downloads model directories.
    pub source: Arc<dyn ModelSource>,
    /// Whether a request for a missing model downloads it.
    pub auto_download: bool,
    /// Options of single models, by model name.
    pub models: HashMap<Arc<str>, ModelOptions>,
}

/// The configured options of one local model.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Maximum tokens of one text; `None` is the model's own limit.
    pub max_length: Option<NonZeroUsize>,
    /// Numeric precision; `None` is the provider's default.
    pub precision: Option<Precision>,
    /// Prompts by name. Each overrides the model's own prompt of that name.
    pub prompts: BTreeMap<String, String>,
    /// Whether vectors can be reduced to fewer dimensions.
    pub matryoshka: bool,
    /// How long an unused model stays in memory, zero for ever; `None` is the default of [`ResourcesConfig`].
    pub unload_after: Option<Duration>,
    /// The path of the graph in the model's directory, for ONNX models.
    pub onnx_file: Option<String>,
    /// Execution providers of the graph, in order of preference; `None` is the provider's default.
    pub onnx_providers: Option<Vec<String>>,
}

/// A provider of models that run in this process.
pub struct Local {
    resources: Arc<SharedResources>,
    format: Arc<dyn ModelFormat>,
    source: Arc<dyn ModelSource>,
    auto_download: bool,
    options: HashMap<Arc<str>, ModelOptions>,
    downloads: Downloads,
    /// All models opened so far. Every one of them is on disk.
    opened: Mutex<HashMap<ModelRef, Arc<LocalModel>>>,
}

impl Local {
    /// Creates the provider `huggingface`. `precision` applies to models without an option of their own.
    pub fn new(config: LocalConfig, precision: Precision) -> Self {
        let threads = Arc::clone(config.resources.threads());
        Self::with_format(config, Arc::new(Safetensors { threads, precision }))
    }

    pub(crate) fn with_format(config: LocalConfig, format: Arc<dyn ModelFormat>) -> Self {
        Self {
            resources: config.resources,
            format,
            downloads: Downloads::new(Arc::clone(&config.source)),
            source: config.source,
            auto_download: config.auto_download,
            options: config.models,
            opened: Mutex::default(),
        }
    }

    fn opened(&self, model: &ModelRef) -> Option<Arc<LocalModel>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// The directory of a model that is on this machine. Reads directories, so it runs on a blocking thread.
    async fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, EmbedError> {
        let (source, model) = (Arc::clone(&self.source), model.clone());
        tokio::task::spawn_blocking(move || source.find(&model))
            .await
            .map_err(|_| EmbedError::internal("looking for the model failed"))?
            .map_err(|error| from_source(&error))
    }

    async fn open_directory(
        &self,
        model: &ModelRef,
        directory: PathBuf,
    ) -> Result<Arc<LocalModel>, EmbedError> {
        let options = self.options.get(&model.name).cloned().unwrap_or_default();
        let (format, open_options) = (Arc::clone(&self.format), options.clone());
        let files = tokio::task::spawn_blocking(move || format.open(&directory, &open_options))
            .await
            .map_err(|_| EmbedError::internal("opening the model failed"))?
            .map_err(|reason| model_instance::unusable(&model.name, &reason))?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Two concurrent first requests may both get here. They share one model.
        Ok(Arc::clone(opened.entry(model.clone()).or_insert_with(|| {
            let opened_model =
                OpenedModel { provider: self.kind(), name: Arc::clone(&model.name), files, options };
            Arc::new(LocalModel::new(opened_model, &self.resources))
        })))
    }

    /// The model if it is on this machine. Opens it if it is not open yet.
    async fn open_if_on_disk(&self, model: &ModelRef) -> Result<Option<Arc<LocalModel>>, EmbedError> {
        if let Some(opened) = self.opened(model) {
            return Ok(Some(opened));
        }
        match self.find(model).await? {
            Some(directory) => self.open_directory(model, directory).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts the download if none runs, and waits for it for [`DOWNLOAD_GRACE`]. So a request for a small model, or for a
    /// name that does not exist, gets its result at once.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoading`] if the download is not finished by then.
    async fn begin_download(&self, model: &ModelRef) -> Result<PathBuf, EmbedError> {
        let download = self.downloads.get_or_start(model);
        match tokio::time::timeout(DOWNLOAD_GRACE, download.result()).await {
            Ok(result) => result.map_err(|error| from_source(&error)),
            Err(_) => {
                let percent = download.percent();
                Err(EmbedError::new(
                    ErrorKind::ModelLoading { percent },
                    Fault::Us,
                    Retry::After(download.remaining()),
                    format!("model '{model}' is being downloaded, {percent} % is complete; retry later"),
                ))
            }
        }
    }
}

/// How long a request waits for a download before it fails with [`ErrorKind::ModelLoading`].
const DOWNLOAD_GRACE: Duration = Duration::from_secs(1);

impl Provider for Local {
    fn kind(&self) -> ProviderKind {
        self.format.provider()
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            if let Some(opened) = self.open_if_on_disk(model).await? {
                return Ok(opened as Arc<dyn Embedder>);
            }
            if !self.auto_download {
                return Err(EmbedError::model_not_found(format!(
                    "model '{model}' is not on this machine and models.auto_download is off; download it with `embeddery models pull {}`",
                    model.name
                )));
            }
            let directory = self.begin_download(model).await?;
            Ok(self.open_directory(model, directory).await? as Arc<dyn Embedder>)
        })
    }

    fn download<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async move {
            if self.find(model).await?.is_none() {
                self.downloads.get_or_start(model).result().await.map_err(|error| from_source(&error))?;
            }
            Ok(())
        })
    }

    fn unload<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<bool, EmbedError>> {
        Box::pin(async move {
            Ok(self
                .opened(model)
                .is_some_and(|opened| opened.instance().unload("an administrator unloaded it")))
        })
    }

    fn describe<'a>(
        &'a self,
        model: &'a ModelRef,
    ) -> BoxFuture<'a, Result<Option<ModelDescription>, EmbedError>> {
        Box::pin(async move {
            let Some(opened) = self.open_if_on_disk(model).await? else { return Ok(None) };
            let instance = Arc::clone(opened.instance());
            let space = tokio::task::spawn_blocking(move || instance.space())
                .await
                .map_err(|_| EmbedError::internal("reading the model failed"))?
                .map_err(|reason| model_instance::unusable(&model.name, &reason))?;
            Ok(Some(ModelDescription { info: opened.instance().files.info().clone(), space }))
        })
    }

    fn state(&self, model: &ModelRef) -> Option<ModelState> {
        if let Some(opened) = self.opened(model) {
            return Some(opened.state());
        }
        Some(match self.downloads.status(model) {
            Some(DownloadStatus::Running { percent }) => ModelState::Downloading { percent },
            Some(DownloadStatus::Failed(error)) => ModelState::Failed { reason: error.message },
            None => match self.source.find(model) {
                Ok(Some(_)) => ModelState::OnDisk,
                Ok(None) => ModelState::Absent,
                Err(error) => ModelState::Failed { reason: error.message },
            },
        })
    }

    fn models(&self) -> Vec<ModelStatus> {
        let mut names: BTreeMap<Arc<str>, ModelRef> = BTreeMap::new();
        let on_disk = self.source.list().into_iter().map(ModelRef::new);
        let opened: Vec<ModelRef> =
            self.opened.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for model in on_disk.chain(self.downloads.running()).chain(opened) {
            names.insert(Arc::clone(&model.name), model);
        }
        names
            .into_iter()
            .filter_map(|(name, model)| self.state(&model).map(|state| ModelStatus { name, state }))
            .collect()
    }
}

/// The error of a request whose model could not be found or downloaded.
fn from_source(error: &SourceError) -> EmbedError {
    let (kind, fault, retry) = match error.kind {
        SourceErrorKind::InvalidName | SourceErrorKind::NotFound | SourceErrorKind::Offline => {
            (ErrorKind::ModelNotFound, Fault::Caller, Retry::Never)
        }
        SourceErrorKind::Unauthorized => (ErrorKind::Unavailable, Fault::Us, Retry::Never),
        SourceErrorKind::Corrupt => (ErrorKind::InvalidUpstreamResponse, Fault::Upstream, Retry::Backoff),
        SourceErrorKind::Unreachable => (ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff),
        SourceErrorKind::Io => (ErrorKind::Unavailable, Fault::Us, Retry::Backoff),
    };
    EmbedError::new(kind, fault, retry, error.message.clone())
}
