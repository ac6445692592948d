//! Downloads under way. Each is a task of its own: it goes on when the request that started it has gone,
//! and every request for the same model watches the same one. A failure is remembered for a while, so that
//! a busy client does not ask the hub for an absent model at every request.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use embeddery_core::{ModelRef, ModelSource, Progress, SourceError, SourceErrorKind};
use tokio::sync::watch;

/// How long a failed download answers for the next ones.
const FAILURE_MEMORY: Duration = Duration::from_secs(10);

/// All downloads, by model.
pub(super) struct Downloads {
    source: Arc<dyn ModelSource>,
    known: Mutex<HashMap<ModelRef, Download>>,
}

/// One download. Clones watch the same one.
#[derive(Clone)]
pub(super) struct Download {
    progress: Arc<Progress>,
    began: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

#[derive(Clone)]
struct Outcome {
    at: Instant,
    result: Result<PathBuf, SourceError>,
}

/// Where a download stands; a finished one is not remembered.
pub(super) enum Status {
    Running { percent: u8 },
    Failed(SourceError),
}

impl Downloads {
    pub(super) fn new(source: Arc<dyn ModelSource>) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// The model's download, begun now if none runs and none failed a moment ago.
    pub(super) fn get_or_start(&self, model: &ModelRef) -> Download {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, download| download.is_of_interest());
        known.entry(model.clone()).or_insert_with(|| self.start(model.clone())).clone()
    }

    pub(super) fn status(&self, model: &ModelRef) -> Option<Status> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let download = known.get(model).filter(|download| download.is_of_interest())?;
        match &*download.outcome.borrow() {
            None => Some(Status::Running { percent: download.percent() }),
            Some(Outcome { result: Err(error), .. }) => Some(Status::Failed(error.clone())),
            Some(Outcome { result: Ok(_), .. }) => None,
        }
    }

    /// The models on their way here.
    pub(super) fn running(&self) -> Vec<ModelRef> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .filter(|(_, download)| download.outcome.borrow().is_none())
            .map(|(model, _)| model.clone())
            .collect()
    }

    fn start(&self, model: ModelRef) -> Download {
        let (report, outcome) = watch::channel(None);
        let progress = Arc::new(Progress::default());
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&progress));
        tokio::spawn(async move {
            tracing::info!(model = %model, "fetching model");
            let result = source.fetch(&model, &shared).await;
            match &result {
                Ok(directory) => {
                    tracing::info!(model = %model, directory = %directory.display(), "model is here");
                }
                Err(error) => tracing::warn!(model = %model, error = %error, "model could not be fetched"),
            }
            report.send_replace(Some(Outcome { at: Instant::now(), result }));
        });
        Download { progress, began: Instant::now(), outcome }
    }
}

impl Download {
    /// Whether it runs, or failed so recently that its failure still answers.
    fn is_of_interest(&self) -> bool {
        match &*self.outcome.borrow() {
            None => self.outcome.has_changed().is_ok(),
            Some(outcome) => outcome.result.is_err() && outcome.at.elapsed() < FAILURE_MEMORY,
        }
    }

    /// Waits for the end.
    pub(super) async fn finished(&self) -> Result<PathBuf, SourceError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.as_ref().map_or_else(Self::aborted, |outcome| outcome.result.clone()),
            Err(_) => Self::aborted(),
        }
    }

    pub(super) fn percent(&self) -> u8 {
        self.progress.percent()
    }

    /// How long the rest will take at the rate so far, between two seconds and two minutes.
    pub(super) fn remaining(&self) -> Duration {
        let (done, total) = self.progress.bytes();
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let seconds = if rate > 0.0 { total.saturating_sub(done) as f64 / rate } else { 5.0 };
        Duration::from_secs_f64(seconds.clamp(2.0, 120.0))
    }

    /// The task ended without a word: the process is stopping.
    fn aborted() -> Result<PathBuf, SourceError> {
        Err(SourceError::new(SourceErrorKind::Unreachable, "the download was stopped; ask again"))
    }
}
