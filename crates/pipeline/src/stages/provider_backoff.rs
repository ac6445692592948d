//! Providers that are out of service. The documents of a paused model are deferred without a call, and those of other
//! models continue.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embeddery_core::Backoff;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{StageFailure, failure::Pause};
use crate::{JobSpec, Reason};

/// The paused models of one process, by provider and model name.
#[derive(Default)]
pub struct PausedProviders(Mutex<HashMap<ModelKey, PausedModel>>);

type ModelKey = (String, String);

struct PausedModel {
    until: Instant,
    /// When the model first failed; `None` while it was only overloaded.
    down_since: Option<Timestamp>,
    reason: Reason,
    /// Pauses in a row.
    pauses: u32,
}

/// Maximum pause that the provider did not ask for.
const MAX_COOLDOWN: Duration = Duration::from_secs(60);

/// The code of a model that still serves other callers.
const OVERLOADED_CODE: &str = "overloaded";

impl PausedProviders {
    /// The failure of a job's documents while their model is paused.
    pub(super) fn deferral(&self, spec: &JobSpec) -> Option<StageFailure> {
        let models = self.lock();
        let paused = models.get(&model_key(spec))?;
        let after = paused.until.checked_duration_since(Instant::now()).filter(|after| !after.is_zero())?;
        Some(StageFailure::Defer { reason: paused.reason.clone(), after })
    }

    /// Pauses the model of a job. A pause that the provider did not ask for doubles with each pause in a row, up to a
    /// minute.
    pub(super) fn pause(&self, spec: &JobSpec, reason: Reason, pause: Pause) -> StageFailure {
        let mut models = self.lock();
        // A model that was not called for a while may have served other processes since.
        let last = models.get(&model_key(spec)).filter(|paused| paused.until.elapsed() <= MAX_COOLDOWN);
        let (pauses, down_since) = last.map_or((0, None), |paused| (paused.pauses, paused.down_since));
        let down_since = if reason.code.as_ref() == OVERLOADED_CODE {
            down_since
        } else {
            down_since.or_else(|| Some(Timestamp::now()))
        };
        let after = match pause {
            Pause::Requested(after) => after,
            Pause::Backoff(first) => Backoff::new(first, MAX_COOLDOWN.max(first)).ceiling(pauses),
        };
        if pauses == 0 {
            tracing::warn!(
                provider = spec.provider,
                model = spec.model,
                error = reason.message,
                "the model is paused; its documents wait"
            );
        }
        let message = match down_since {
            Some(since) => format!("{} has not served since {since:.0}: {}", spec.provider, reason.message),
            None => reason.message.clone(),
        };
        let reason = Reason { message, ..reason };
        let paused = PausedModel {
            until: Instant::now() + after,
            down_since,
            reason: reason.clone(),
            pauses: pauses + 1,
        };
        models.insert(model_key(spec), paused);
        StageFailure::Defer { reason, after }
    }

    /// Ends the pause of a model that has served.
    pub(super) fn resume(&self, spec: &JobSpec) {
        if self.lock().remove(&model_key(spec)).is_some() {
            tracing::info!(provider = spec.provider, model = spec.model, "the model serves again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelKey, PausedModel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn model_key(spec: &JobSpec) -> ModelKey {
    (spec.provider.clone(), spec.model.clone())
}

#[cfg(test)]
mod tests {
    use super::{super::reason, *};
    use crate::Chunking;

    fn spec(provider: &str) -> JobSpec {
        let chunking = Chunking { method: "none".into(), size: 1, overlap: 0, unit: "characters".into() };
        let (provider, model) = (provider.to_owned(), "m".to_owned());
        JobSpec { collection: "c".into(), provider, model, dimensions: None, chunking }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_concerns_one_model_and_ends_by_itself() {
        let models = PausedProviders::default();
        let second = Duration::from_secs(1);
        assert!(models.deferral(&spec("openai")).is_none());
        let paused = models.pause(&spec("openai"), reason("x", "down"), Pause::Backoff(second));
        let StageFailure::Defer { reason: why, .. } = paused else { unreachable!("a pause defers") };
        assert!(why.message.starts_with("openai has not served since 2") && why.message.ends_with("Z: down"));
        assert!(models.deferral(&spec("openai")).is_some() && models.deferral(&spec("cohere")).is_none());
        tokio::time::advance(second).await;
        assert!(models.deferral(&spec("openai")).is_none());
        models.pause(&spec("openai"), reason("x", "down"), Pause::Backoff(second));
        tokio::time::advance(second).await;
        assert!(models.deferral(&spec("openai")).is_some(), "the second pause is longer");
        models.resume(&spec("openai"));
        assert!(models.deferral(&spec("openai")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_overloaded_or_was_not_called_is_not_reported_as_down() {
        let (models, second) = (PausedProviders::default(), Duration::from_secs(1));
        let pause = |code| match models.pause(&spec("local"), reason(code, "no"), Pause::Backoff(second)) {
            StageFailure::Defer { reason, after } => (reason.message, after),
            other => unreachable!("a pause defers: {other:?}"),
        };
        assert_eq!(pause(OVERLOADED_CODE), ("no".into(), second));
        let (message, after) = pause("down");
        assert!(message.starts_with("local has not served since 2") && after == 2 * second, "{message}");
        tokio::time::advance(2 * second + MAX_COOLDOWN + second).await;
        assert_eq!(pause(OVERLOADED_CODE), ("no".into(), second), "the pauses start anew");
    }
}
