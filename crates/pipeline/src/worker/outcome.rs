//! From a step to what the queue is told. What the job store must know of it is written first.

use std::time::Duration;

use super::WorkerConfig;
use crate::{
    End, Outcome, Put, Reason, Stage, Task,
    stages::{Step, Tools, Trouble},
};

/// How failures are treated.
pub(super) struct Policy<'a> {
    pub(super) tools: &'a Tools,
    pub(super) config: &'a WorkerConfig,
    pub(super) stage: Stage,
}

/// No pause is drawn above this.
const LONGEST: Duration = Duration::from_secs(300);

impl Policy<'_> {
    /// What the queue is told about a task after a step.
    pub(super) async fn outcome(&self, task: &Task, step: Step) -> Outcome {
        let trouble = match step {
            Step::Next { bytes } => return Outcome::Next { bytes },
            Step::Over => return Outcome::Finished,
            Step::Trouble(trouble) => trouble,
        };
        tracing::debug!(job = %task.id.job, item = task.id.item, stage = self.stage.as_str(), ?trouble, "not done");
        match trouble {
            Trouble::Failed(reason) => self.failed(task, reason, Outcome::Finished).await,
            Trouble::Again { reason, after: _ } if task.attempts + 1 >= self.config.max_attempts => {
                self.failed(task, reason.clone(), Outcome::Dead(reason)).await
            }
            Trouble::Again { reason, after } => {
                // The list of documents shows it; when that cannot be written, the next attempt will tell.
                let _ = self.tools.jobs.note_attempt(task.id, &reason).await;
                let pause = drawn(self.config.backoff, task.attempts + 1, LONGEST);
                Outcome::Later { after: after.map_or(pause, |asked| asked.max(pause)), charged: true }
            }
            Trouble::Wait { after, .. } => {
                // Spread, so that those who wait for one thing do not all come back at one moment.
                Outcome::Later { after: after + after.mul_f64(0.25 * fastrand::f64()), charged: false }
            }
        }
    }

    /// The document fails; the job store knows before the queue forgets.
    async fn failed(&self, task: &Task, reason: Reason, outcome: Outcome) -> Outcome {
        match self.tools.jobs.finish(task.id, End::Failed { stage: self.stage, reason }).await {
            Ok(Put::Written) => outcome,
            Ok(Put::Already(_) | Put::Gone) => Outcome::Finished,
            Err(error) => {
                tracing::warn!(%error, "a failure could not be written down; it is tried again");
                Outcome::Later { after: drawn(self.config.backoff, 1, LONGEST), charged: false }
            }
        }
    }
}

/// A pause drawn between nothing and `base`, doubled with each failure after the first (full jitter).
pub(super) fn drawn(base: Duration, failures: u32, longest: Duration) -> Duration {
    let most = base.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(longest);
    most.mul_f64(fastrand::f64())
}
