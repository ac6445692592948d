//! The provider `huggingface`: model directories run by this process' own engine.
//!
//! A model moves through these hands: `downloads` brings it here, `model` loads it on first use,
//! `queue` makes batches of whatever waits. Each model is fetched once, loaded once at a time, and
//! computed by one engine thread that uses the process' shared pool.

mod downloads;
mod model;
mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, Embedder, ErrorKind, Fault, ModelRef, ModelSource, ModelState, ModelStatus,
    Provider, ProviderKind, Retry, SourceError, SourceErrorKind,
};
use embeddery_engine::{Precision, Threads};

use downloads::{Downloads, Status};
use model::LocalModel;

/// How the local provider works.
pub struct LocalConfig {
    /// Where model directories come from.
    pub source: Arc<dyn ModelSource>,
    /// Threads that compute, shared by all models.
    pub threads: NonZeroUsize,
    /// Whether a request for an absent model fetches it.
    pub auto_download: bool,
    /// Tokens that may wait in one model's queue; a request beyond that is refused, unless nothing waits.
    pub queue_tokens: usize,
    /// How exactly models compute that have no setting of their own.
    pub precision: Precision,
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
}

/// The provider. Clones are not needed: it is shared behind an `Arc`.
pub struct Local {
    shared: Arc<model::Shared>,
    source: Arc<dyn ModelSource>,
    auto_download: bool,
    options: HashMap<Arc<str>, ModelOptions>,
    downloads: Downloads,
    /// Every model opened so far. Only models on disk get in.
    opened: Mutex<HashMap<ModelRef, Arc<LocalModel>>>,
}

impl Local {
    /// Starts the thread pool; models come later, on demand.
    pub fn new(config: LocalConfig) -> Result<Self, String> {
        let threads = Threads::new(config.threads)
            .map_err(|e| format!("cannot start {} engine threads: {e}", config.threads))?;
        Ok(Self {
            shared: Arc::new(model::Shared::new(threads, config.queue_tokens, config.precision)),
            downloads: Downloads::new(Arc::clone(&config.source)),
            source: config.source,
            auto_download: config.auto_download,
            options: config.models,
            opened: Mutex::default(),
        })
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

    async fn open_here(&self, model: &ModelRef, directory: PathBuf) -> Result<Arc<dyn Embedder>, EmbedError> {
        let options = self.options.get(&model.name).cloned().unwrap_or_default();
        let (name, shared) = (Arc::clone(&model.name), Arc::clone(&self.shared));
        let opened = tokio::task::spawn_blocking(move || LocalModel::open(name, &directory, options, shared))
            .await
            .map_err(|_| EmbedError::internal("opening the model failed"))??;
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(model.clone()).or_insert_with(|| Arc::new(opened))) as Arc<dyn Embedder>)
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
        ProviderKind::HuggingFace
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            if let Some(opened) = self.opened(model) {
                return Ok(opened as Arc<dyn Embedder>);
            }
            let directory = match self.find(model).await? {
                Some(directory) => directory,
                None if self.auto_download => self.begin_download(model).await?,
                None => {
                    return Err(EmbedError::model_not_found(format!(
                        "model '{model}' is not on this machine and models.auto_download is off; fetch it with `embeddery models pull {}`",
                        model.name
                    )));
                }
            };
            self.open_here(model, directory).await
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
        SourceErrorKind::Corrupt => (ErrorKind::BadUpstreamAnswer, Fault::Upstream, Retry::Backoff),
        SourceErrorKind::Unreachable => (ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff),
        SourceErrorKind::Io => (ErrorKind::Unavailable, Fault::Us, Retry::Backoff),
    };
    EmbedError::new(kind, fault, retry, error.message.clone())
}
