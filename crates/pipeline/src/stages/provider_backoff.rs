//! Providers that are out of order: while one is parked, its documents wait without asking it, and those of all
//! others go on.

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

/// The lanes of one process, a lane for each provider's model.
#[derive(Default)]
pub struct PausedProviders(Mutex<HashMap<Lane, Parked>>);

type Lane = (String, String);

struct Parked {
    until: Instant,
    /// When it first did not serve; `None` while it was only busy.
    since: Option<Timestamp>,
    reason: Reason,
    /// Parked so often in a row.
    times: u32,
}

/// The longest pause that nobody has asked for.
const MAX_COOLDOWN: Duration = Duration::from_secs(60);

/// The code of a model that serves others meanwhile.
const OVERLOADED_CODE: &str = "overloaded";

impl PausedProviders {
    /// What a plan's documents wait for, if they do.
    pub(super) fn blocked(&self, plan: &JobSpec) -> Option<StageFailure> {
        let lanes = self.lock();
        let parked = lanes.get(&lane(plan))?;
        let after = parked.until.checked_duration_since(Instant::now()).filter(|after| !after.is_zero())?;
        Some(StageFailure::Defer { reason: parked.reason.clone(), after })
    }

    /// Parks a plan's lane. A guessed pause doubles with each time in a row, up to a minute.
    pub(super) fn pause(&self, plan: &JobSpec, reason: Reason, pause: Pause) -> StageFailure {
        let mut lanes = self.lock();
        // When nobody has asked for long, nobody knows whether it has served since.
        let before = lanes.get(&lane(plan)).filter(|parked| parked.until.elapsed() <= MAX_COOLDOWN);
        let (times, since) = before.map_or((0, None), |parked| (parked.times, parked.since));
        let since = if reason.code.as_ref() == OVERLOADED_CODE {
            since
        } else {
            since.or_else(|| Some(Timestamp::now()))
        };
        let after = match pause {
            Pause::Asked(after) => after,
            Pause::Guessed(first) => Backoff::new(first, MAX_COOLDOWN.max(first)).ceiling(times),
        };
        if times == 0 {
            tracing::warn!(
                provider = plan.provider,
                model = plan.model,
                why = reason.message,
                "documents wait"
            );
        }
        let message = match since {
            Some(since) => format!("{} has not served since {since:.0}: {}", plan.provider, reason.message),
            None => reason.message.clone(),
        };
        let reason = Reason { message, ..reason };
        let parked =
            Parked { until: Instant::now() + after, since, reason: reason.clone(), times: times + 1 };
        lanes.insert(lane(plan), parked);
        StageFailure::Defer { reason, after }
    }

    /// A plan's lane has answered.
    pub(super) fn open(&self, plan: &JobSpec) {
        if self.lock().remove(&lane(plan)).is_some() {
            tracing::info!(provider = plan.provider, model = plan.model, "documents go on");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Parked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lane(plan: &JobSpec) -> Lane {
    (plan.provider.clone(), plan.model.clone())
}

#[cfg(test)]
mod tests {
    use super::{super::reason, *};
    use crate::Chunking;

    fn plan(provider: &str) -> JobSpec {
        let chunking = Chunking { method: "none".into(), size: 1, overlap: 0, unit: "characters".into() };
        let (provider, model) = (provider.to_owned(), "m".to_owned());
        JobSpec { collection: "c".into(), provider, model, dimensions: None, chunking }
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_lane_blocks_no_other_and_opens_by_itself() {
        let lanes = PausedProviders::default();
        let second = Duration::from_secs(1);
        assert!(lanes.blocked(&plan("openai")).is_none());
        let parked = lanes.pause(&plan("openai"), reason("x", "down"), Pause::Guessed(second));
        let StageFailure::Defer { reason: why, .. } = parked else { unreachable!("who is parked waits") };
        assert!(why.message.starts_with("openai has not served since 2") && why.message.ends_with("Z: down"));
        assert!(lanes.blocked(&plan("openai")).is_some() && lanes.blocked(&plan("cohere")).is_none());
        tokio::time::advance(second).await;
        assert!(lanes.blocked(&plan("openai")).is_none());
        lanes.pause(&plan("openai"), reason("x", "down"), Pause::Guessed(second));
        tokio::time::advance(second).await;
        assert!(lanes.blocked(&plan("openai")).is_some(), "the second pause is longer");
        lanes.open(&plan("openai"));
        assert!(lanes.blocked(&plan("openai")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_asked_for_long_or_was_only_busy_is_not_said_to_serve_nobody() {
        let (lanes, second) = (PausedProviders::default(), Duration::from_secs(1));
        let park = |code| match lanes.pause(&plan("local"), reason(code, "no"), Pause::Guessed(second)) {
            StageFailure::Defer { reason, after } => (reason.message, after),
            other => unreachable!("who is parked waits: {other:?}"),
        };
        assert_eq!(park(OVERLOADED_CODE), ("no".into(), second));
        let (message, after) = park("down");
        assert!(message.starts_with("local has not served since 2") && after == 2 * second, "{message}");
        tokio::time::advance(2 * second + MAX_COOLDOWN + second).await;
        assert_eq!(park(OVERLOADED_CODE), ("no".into(), second), "it begins anew");
    }
}
