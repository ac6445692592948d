//! Models that run in this process. The provider `huggingface`: model directories run by this process' own engine.
//!
//! A model moves through these hands: `downloads` brings it here, `slot` has it in memory while it is used, for which
//! `memory` says when there is room, `reading` makes tokens of texts, `queue` makes batches of whatever waits, and a
//! `backend` computes. Each model is fetched once, loaded once at a time, and computed by one thread that uses the
//! process' shared pool.

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
use downloads::{Downloads, Status};
use model::LocalModel;

pub use memory_budget::{MemoryBudget, MemoryLimits};
pub use shared_resources::{MachineConfig, SharedResources};

/// How a local provider works.
pub struct LocalConfig {
    /// What all local providers share.
    pub machine: Arc<SharedResources>,
    /// Where model directories come from.
    pub source: Arc<dyn ModelSource>,
    /// Whether a request for an absent model fetches it.
    pub auto_download: bool,
    /// What configuration says of single models, by the model's name.
    pub models: HashMap<Arc<str>, ModelOptions>,
}

/// What configuration says of one local model.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Most tokens of one text, where it should not be the model's own limit.
    pub max_length: Option<NonZeroUsize>,
    /// How exactly it computes; `None` is the provider's own setting.
    pub precision: Option<Precision>,
    /// Prompts by name, each in place of the model's own of that name.
    pub prompts: BTreeMap<String, String>,
    /// Whether a cut vector is itself a good vector.
    pub matryoshka: bool,
    /// How long it stays in memory unused, zero for ever; `None` is the machine's own setting.
    pub unload_after: Option<Duration>,
    /// The graph's file in the model's directory, of ONNX models.
    pub onnx_file: Option<String>,
    /// What computes the graph, in the order of preference; `None` is the provider's own setting.
    pub onnx_providers: Option<Vec<String>>,
}

/// The provider. Clones are not needed: it is shared behind an `Arc`.
pub struct Local {
    machine: Arc<SharedResources>,
    format: Arc<dyn ModelFormat>,
    source: Arc<dyn ModelSource>,
    auto_download: bool,
    options: HashMap<Arc<str>, ModelOptions>,
    downloads: Downloads,
    /// Every model opened so far. Only models on disk get in.
    opened: Mutex<HashMap<ModelRef, Arc<LocalModel>>>,
}

impl Local {
    /// The provider `huggingface`; models come later, on demand. `precision` is of those that have no setting of their own.
    pub fn new(config: LocalConfig, precision: Precision) -> Self {
        let threads = Arc::clone(config.machine.threads());
        Self::of_format(config, Arc::new(Safetensors { threads, precision }))
    }

    pub(crate) fn of_format(config: LocalConfig, format: Arc<dyn ModelFormat>) -> Self {
        Self {
            machine: config.machine,
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

    /// Where the model lies, looked up off the async threads because it reads directories.
    async fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, EmbedError> {
        let (source, model) = (Arc::clone(&self.source), model.clone());
        tokio::task::spawn_blocking(move || source.find(&model))
            .await
            .map_err(|_| EmbedError::internal("looking for the model failed"))?
            .map_err(|error| from_source(&error))
    }

    async fn open_here(&self, model: &ModelRef, directory: PathBuf) -> Result<Arc<LocalModel>, EmbedError> {
        let options = self.options.get(&model.name).cloned().unwrap_or_default();
        let (format, wanted) = (Arc::clone(&self.format), options.clone());
        let files = tokio::task::spawn_blocking(move || format.open(&directory, &wanted))
            .await
            .map_err(|_| EmbedError::internal("opening the model failed"))?
            .map_err(|reason| model_instance::unusable(&model.name, &reason))?;
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Two first requests may both come here; one model results.
        Ok(Arc::clone(all.entry(model.clone()).or_insert_with(|| {
            let settings = self.machine.slot_settings(options.unload_after);
            let name = (self.kind(), Arc::clone(&model.name));
            Arc::new(LocalModel::new(name, files, options, (settings, self.machine.tokenizing())))
        })))
    }

    /// The model, opened if it is on this machine.
    async fn known(&self, model: &ModelRef) -> Result<Option<Arc<LocalModel>>, EmbedError> {
        if let Some(opened) = self.opened(model) {
            return Ok(Some(opened));
        }
        match self.find(model).await? {
            Some(directory) => self.open_here(model, directory).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts the download when none runs, and says how far it is. Waits a moment first: a small model, or a
    /// name that does not exist, is then answered at once instead of by "try again".
    async fn begin_download(&self, model: &ModelRef) -> Result<PathBuf, EmbedError> {
        let download = self.downloads.get_or_start(model);
        match tokio::time::timeout(GRACE, download.finished()).await {
            Ok(result) => result.map_err(|error| from_source(&error)),
            Err(_) => {
                let percent = download.percent();
                Err(EmbedError::new(
                    ErrorKind::ModelLoading { percent },
                    Fault::Us,
                    Retry::After(download.remaining()),
                    format!("model '{model}' is being downloaded, {percent} % is here; ask again later"),
                ))
            }
        }
    }
}

/// How long a request waits for a download that it started before it is told to come back.
const GRACE: Duration = Duration::from_secs(1);

impl Provider for Local {
    fn kind(&self) -> ProviderKind {
        self.format.provider()
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            if let Some(known) = self.known(model).await? {
                return Ok(known as Arc<dyn Embedder>);
            }
            if !self.auto_download {
                return Err(EmbedError::model_not_found(format!(
                    "model '{model}' is not on this machine and models.auto_download is off; fetch it with `embeddery models pull {}`",
                    model.name
                )));
            }
            let directory = self.begin_download(model).await?;
            Ok(self.open_here(model, directory).await? as Arc<dyn Embedder>)
        })
    }

    fn download<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async move {
            if self.find(model).await?.is_none() {
                self.downloads.get_or_start(model).finished().await.map_err(|error| from_source(&error))?;
            }
            Ok(())
        })
    }

    fn unload<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<bool, EmbedError>> {
        Box::pin(async move {
            Ok(self.opened(model).is_some_and(|opened| opened.slot().unload("an administrator said so")))
        })
    }

    fn describe<'a>(
        &'a self,
        model: &'a ModelRef,
    ) -> BoxFuture<'a, Result<Option<ModelDescription>, EmbedError>> {
        Box::pin(async move {
            let Some(known) = self.known(model).await? else { return Ok(None) };
            let slot = Arc::clone(known.slot());
            let space = tokio::task::spawn_blocking(move || slot.space())
                .await
                .map_err(|_| EmbedError::internal("reading the model failed"))?
                .map_err(|reason| model_instance::unusable(&model.name, &reason))?;
            Ok(Some(ModelDescription { info: known.slot().files.facts().clone(), space }))
        })
    }

    fn state(&self, model: &ModelRef) -> Option<ModelState> {
        if let Some(opened) = self.opened(model) {
            return Some(opened.state());
        }
        Some(match self.downloads.status(model) {
            Some(Status::Running { percent }) => ModelState::Downloading { percent },
            Some(Status::Failed(error)) => ModelState::Failed { reason: error.message },
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

/// What a model that cannot be had means for the request that wanted it.
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
