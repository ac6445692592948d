//! What people do to jobs that are there: cancel, try again, delete all.

use std::collections::HashSet;

use embeddery_pipeline::{Job, JobId, Page, Stage, Status, task};

use super::Jobs;
use crate::error::ApiError;

/// Dead letters that are looked at together.
const LETTERS: usize = 500;
/// Jobs that are.
const PAGE: usize = 500;

impl Jobs {
    /// Cancels a job; one that was cancelled before stays so, one that ended otherwise cannot be.
    pub(crate) async fn cancel(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let job = self.find(user, id).await?;
        let cancelled = self.store.cancel(user, job.id).await?;
        if !cancelled && job.status != Status::Cancelled {
            let now = self.find(user, id).await?;
            if now.status != Status::Cancelled {
                return Err(ApiError::job_ended(&job.id, "there is nothing to cancel"));
            }
        }
        self.unqueue(job.id).await;
        self.find(user, id).await
    }

    /// Takes a job's tasks out of the queue. Should that fail, each finds in the truth that it is not wanted.
    pub(crate) async fn unqueue(&self, job: JobId) {
        if let Err(error) = self.queue.cancel(job).await {
            tracing::warn!(%error, %job, "an ended job's tasks are still in the queue");
        }
    }

    /// Lets a job's failed documents run again, each from the stage it failed at.
    pub(crate) async fn retry(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let job = self.find(user, id).await?;
        if job.status == Status::Cancelled {
            return Err(ApiError::job_ended(&job.id, "it was cancelled; submit its documents again"));
        }
        self.admit(user).await?;
        // First, because a task that is a dead letter does not enter the queue. A document whose letter is gone and
        // that is not set back yet is failed all the same.
        self.bury(job.id).await?;
        let again = self.store.retry(user, job.id).await?;
        if again.is_empty() {
            return Err(ApiError::job_ended(&job.id, "none of its documents has failed"));
        }
        let tasks: Vec<_> = again.iter().map(task).collect();
        if let Err(error) = self.queue.enqueue(&tasks).await {
            tracing::warn!(%error, job = %job.id, "documents to be tried again are not yet in the queue");
        }
        self.find(user, id).await
    }

    /// Removes a job's dead letters.
    async fn bury(&self, job: JobId) -> Result<(), ApiError> {
        for stage in Stage::ALL {
            let (mut after, mut found) = (None, HashSet::new());
            loop {
                let letters = self.queue.dead_letters(stage, after.take(), LETTERS).await?;
                let full = letters.len() == LETTERS;
                after = letters.last().map(|letter| letter.id.clone());
                let own = letters
                    .into_iter()
                    .filter(|letter| letter.task.as_ref().is_some_and(|task| task.id.job == job));
                found.extend(own.map(|letter| letter.id));
                if !full {
                    break;
                }
            }
            for letter in found {
                self.queue.bury(stage, &letter).await?;
            }
        }
        Ok(())
    }

    /// Removes all of a user's jobs, from the queue, too; how many.
    pub(crate) async fn delete_all(&self, user: &str) -> Result<u64, ApiError> {
        let (mut after, mut unfinished) = (None, Vec::new());
        loop {
            let page = self.store.jobs(user, Page { state: None, after, limit: PAGE }).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            unfinished.extend(page.iter().filter(|job| job.ended_at_ms.is_none()).map(|job| job.id));
        }
        let deleted = self.store.delete_tenant(user).await?;
        for job in unfinished {
            self.unqueue(job).await;
        }
        Ok(deleted)
    }
}
