//! From a step to what the queue is told. What the job store must know of it is written first.

use std::time::Duration;

use embeddery_core::Backoff;

use super::WorkerConfig;
use crate::{
    DocumentOutcome, Outcome, Reason, RetryNote, Stage, Task, WriteResult,
    clock::now_ms,
    stages::{StageContext, StageFailure, StageResult},
};

/// How failures are treated.
pub(super) struct RetryPolicy<'a> {
    pub(super) tools: &'a StageContext,
    pub(super) config: &'a WorkerConfig,
    pub(super) stage: Stage,
}

/// No pause is drawn above this.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(300);

impl RetryPolicy<'_> {
    /// What the queue is told about a task after a step.
    pub(super) async fn outcome(&self, task: &Task, step: StageResult) -> Outcome {
        let trouble = match step {
            StageResult::Next { bytes } => return Outcome::Next { bytes },
            StageResult::Done => return Outcome::Finished,
            StageResult::Trouble(trouble) => trouble,
        };
        tracing::debug!(job = %task.id.job, item = task.id.item, stage = self.stage.as_str(), ?trouble, "not done");
        match trouble {
            StageFailure::Failed(reason) => self.failed(task, reason, Outcome::Finished).await,
            StageFailure::Retry { reason, after: _ } if task.attempts + 1 >= self.config.max_attempts => {
                self.failed(task, reason.clone(), Outcome::DeadLetter(reason)).await
            }
            StageFailure::Retry { reason, after } => {
                let pause = jittered_backoff(self.config.backoff, task.attempts + 1, MAX_BACKOFF);
                self.later(task, reason, (after.map_or(pause, |asked| asked.max(pause)), true)).await
            }
            StageFailure::Defer { reason, after } => {
                // Spread, so that those who wait for one thing do not all come back at one moment.
                self.later(task, reason, (after + after.mul_f64(0.25 * fastrand::f64()), false)).await
            }
        }
    }

    /// Later, with the reason in the list of documents; when that cannot be written, the next time will tell.
    async fn later(&self, task: &Task, reason: Reason, (after, charged): (Duration, bool)) -> Outcome {
        let again_at_ms = now_ms() + u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2);
        let note = RetryNote { task: task.id, reason, charged, retry_at_ms: again_at_ms };
        if let Err(error) = self.tools.jobs.record_retry(vec![note]).await {
            tracing::debug!(%error, "why a document waits could not be noted");
        }
        Outcome::RetryAfter { after, charged }
    }

    /// The document fails; the job store knows before the queue forgets.
    async fn failed(&self, task: &Task, reason: Reason, outcome: Outcome) -> Outcome {
        let end = DocumentOutcome::Failed { stage: self.stage, reason, enqueued_at_ms: task.enqueued_at_ms };
        match self.tools.jobs.finish(vec![(task.id, end)]).await {
            Ok(puts) if puts == [WriteResult::Written] => outcome,
            Ok(_) => Outcome::Finished,
            Err(error) => {
                tracing::warn!(%error, "a failure could not be written down; it is tried again");
                Outcome::RetryAfter {
                    after: jittered_backoff(self.config.backoff, 1, MAX_BACKOFF),
                    charged: false,
                }
            }
        }
    }
}

/// A pause drawn between nothing and `base`, doubled with each failure after the first (full jitter).
pub(super) fn jittered_backoff(base: Duration, failures: u32, longest: Duration) -> Duration {
    Backoff::with_full_jitter(base, longest).pause(failures.saturating_sub(1), fastrand::f64())
}
