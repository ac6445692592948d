//! From the result of a stage to the outcome for the queue. The job store is written first.

use std::time::Duration;

use embeddery_core::{Backoff, to_ms};

use super::WorkerConfig;
use crate::{
    DocumentOutcome, JobProgress, Outcome, Reason, RetryNote, Stage, Task, WriteResult,
    clock::now_ms,
    stages::{StageFailure, StageResult},
};

/// How failures of a stage are treated.
pub(super) struct RetryPolicy<'a> {
    pub(super) jobs: &'a dyn JobProgress,
    pub(super) config: &'a WorkerConfig,
    pub(super) stage: Stage,
}

/// Maximum delay between two attempts of a document.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(300);

impl RetryPolicy<'_> {
    /// The outcome of a task.
    pub(super) async fn outcome(&self, task: &Task, result: StageResult) -> Outcome {
        let failure = match result {
            StageResult::Next { bytes } => return Outcome::Next { bytes },
            StageResult::Done => return Outcome::Finished,
            StageResult::Failure(failure) => failure,
        };
        tracing::debug!(job = %task.id.job, item = task.id.item, stage = self.stage.as_str(), ?failure, "a document was not processed");
        match failure {
            StageFailure::Failed(reason) => self.fail(task, reason, Outcome::Finished).await,
            StageFailure::Retry { reason, after: _ } if task.attempts + 1 >= self.config.max_attempts => {
                self.fail(task, reason.clone(), Outcome::DeadLetter(reason)).await
            }
            StageFailure::Retry { reason, after } => {
                let delay = jittered_backoff(self.config.backoff, task.attempts + 1, MAX_BACKOFF);
                let after = after.map_or(delay, |requested| requested.max(delay));
                self.retry(task, reason, Outcome::RetryAfter { after, charged: true }).await
            }
            StageFailure::Defer { reason, after } => {
                // Jitter keeps the documents that wait for one thing from returning at the same moment.
                let after = after + after.mul_f64(0.25 * fastrand::f64());
                self.retry(task, reason, Outcome::RetryAfter { after, charged: false }).await
            }
        }
    }

    /// Notes in the job store why the document is retried, and when. A note that cannot be written is left out.
    async fn retry(&self, task: &Task, reason: Reason, outcome: Outcome) -> Outcome {
        if let Outcome::RetryAfter { after, charged } = outcome {
            let retry_at_ms = now_ms() + to_ms(after);
            let note = RetryNote { task: task.id, reason, charged, retry_at_ms };
            if let Err(error) = self.jobs.record_retry(vec![note]).await {
                tracing::debug!(%error, "the reason of a retry could not be recorded");
            }
        }
        outcome
    }

    /// Ends the document as failed in the job store, before the queue forgets it.
    async fn fail(&self, task: &Task, reason: Reason, outcome: Outcome) -> Outcome {
        let end = DocumentOutcome::Failed { stage: self.stage, reason, enqueued_at_ms: task.enqueued_at_ms };
        match self.jobs.finish(vec![(task.id, end)]).await {
            Ok(written) if written == [WriteResult::Written] => outcome,
            Ok(_) => Outcome::Finished,
            Err(error) => {
                tracing::warn!(%error, "a failure could not be recorded; the document is retried");
                let after = jittered_backoff(self.config.backoff, 1, MAX_BACKOFF);
                Outcome::RetryAfter { after, charged: false }
            }
        }
    }
}

/// A delay drawn between zero and `base`, which doubles with each failure after the first (full jitter).
pub(super) fn jittered_backoff(base: Duration, failures: u32, max: Duration) -> Duration {
    Backoff::with_full_jitter(base, max).pause(failures.saturating_sub(1), fastrand::f64())
}
