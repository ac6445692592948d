//! Running downloads. Each download is a task of its own, which continues if the request that started it is cancelled. All
//! requests for a model watch the same download. A failure is kept for a while, so that requests for a missing model do
//! not each send a request to the hub.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use embeddery_core::{ModelRef, ModelSource, Progress, SourceError, SourceErrorKind};
use tokio::sync::watch;

/// How long requests get the error of a failed download instead of starting a new one.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(10);

/// All downloads, by model.
pub(super) struct Downloads {
    source: Arc<dyn ModelSource>,
    by_model: Mutex<HashMap<ModelRef, Download>>,
}

/// One download. Clones watch the same download.
#[derive(Clone)]
pub(super) struct Download {
    progress: Arc<Progress>,
    started_at: Instant,
    finished: watch::Receiver<Option<Finished>>,
}

/// The result of a finished download.
#[derive(Clone)]
struct Finished {
    at: Instant,
    result: Result<PathBuf, SourceError>,
}

/// The status of a download. Successful downloads have none.
pub(super) enum DownloadStatus {
    Running { percent: u8 },
    Failed(SourceError),
}

impl Downloads {
    pub(super) fn new(source: Arc<dyn ModelSource>) -> Self {
        Self { source, by_model: Mutex::default() }
    }

    /// The model's download. Starts one, unless one is running or failed during the cooldown.
    pub(super) fn get_or_start(&self, model: &ModelRef) -> Download {
        let mut downloads = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.retain(|_, download| download.is_current());
        downloads.entry(model.clone()).or_insert_with(|| self.start(model.clone())).clone()
    }

    pub(super) fn status(&self, model: &ModelRef) -> Option<DownloadStatus> {
        let downloads = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        let download = downloads.get(model).filter(|download| download.is_current())?;
        match &*download.finished.borrow() {
            None => Some(DownloadStatus::Running { percent: download.percent() }),
            Some(Finished { result: Err(error), .. }) => Some(DownloadStatus::Failed(error.clone())),
            Some(Finished { result: Ok(_), .. }) => None,
        }
    }

    /// The models that are being downloaded.
    pub(super) fn running(&self) -> Vec<ModelRef> {
        let downloads = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        downloads
            .iter()
            .filter(|(_, download)| download.finished.borrow().is_none())
            .map(|(model, _)| model.clone())
            .collect()
    }

    fn start(&self, model: ModelRef) -> Download {
        let (sender, finished) = watch::channel(None);
        let progress = Arc::new(Progress::default());
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&progress));
        tokio::spawn(async move {
            tracing::info!(model = %model, "downloading model");
            let result = source.fetch(&model, &shared).await;
            match &result {
                Ok(directory) => {
                    tracing::info!(model = %model, directory = %directory.display(), "model downloaded");
                }
                Err(error) => tracing::warn!(model = %model, error = %error, "model could not be downloaded"),
            }
            sender.send_replace(Some(Finished { at: Instant::now(), result }));
        });
        Download { progress, started_at: Instant::now(), finished }
    }
}

impl Download {
    /// Whether the download is running or failed during the cooldown.
    fn is_current(&self) -> bool {
        match &*self.finished.borrow() {
            None => self.finished.has_changed().is_ok(),
            Some(finished) => finished.result.is_err() && finished.at.elapsed() < FAILURE_COOLDOWN,
        }
    }

    /// Waits for the result.
    pub(super) async fn result(&self) -> Result<PathBuf, SourceError> {
        let mut finished = self.finished.clone();
        match finished.wait_for(Option::is_some).await {
            Ok(finished) => finished.as_ref().map_or_else(Self::aborted, |finished| finished.result.clone()),
            Err(_) => Self::aborted(),
        }
    }

    pub(super) fn percent(&self) -> u8 {
        self.progress.percent()
    }

    /// The estimated remaining time at the average rate so far, between two seconds and two minutes.
    pub(super) fn remaining(&self) -> Duration {
        let (done, total) = self.progress.bytes();
        let rate = done as f64 / self.started_at.elapsed().as_secs_f64().max(0.001);
        let seconds = if rate > 0.0 { total.saturating_sub(done) as f64 / rate } else { 5.0 };
        Duration::from_secs_f64(seconds.clamp(2.0, 120.0))
    }

    /// The error of a task that ended without a result, because the process is stopping.
    fn aborted() -> Result<PathBuf, SourceError> {
        Err(SourceError::new(SourceErrorKind::Unreachable, "the download was stopped; retry"))
    }
}
