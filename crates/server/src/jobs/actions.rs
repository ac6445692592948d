//! What people do to jobs that are there: cancel, try again, delete all.

use std::time::{Duration, Instant};

use embeddery_pipeline::{Job, JobId, Page, Status, Task};

use super::Jobs;
use crate::error::ApiError;

/// Jobs, and tasks, that are looked at together.
const PAGE: usize = 500;
/// How long a deletion waits for documents under way.
const TIMEOUT: Duration = Duration::from_secs(20);

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
        self.remove_from_queue(job.id).await;
        self.find(user, id).await
    }

    /// Takes a job's tasks out of the queue. Should that fail, each finds in the truth that it is not wanted.
    pub(crate) async fn remove_from_queue(&self, job: JobId) {
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
        let again = self.store.retry(user, job.id).await?;
        if again.is_empty() {
            return Err(ApiError::job_ended(&job.id, "none of its documents has failed"));
        }
        // A task that is a dead letter is one no more once it is enqueued.
        for page in again.chunks(PAGE) {
            let tasks: Vec<_> = page.iter().map(Task::for_document).collect();
            if let Err(error) = self.queue.enqueue(&tasks).await {
                tracing::warn!(%error, job = %job.id, "documents to be tried again are not yet in the queue");
                break;
            }
        }
        self.find(user, id).await
    }

    /// Waits until nothing of a user is under way, so that nothing is stored behind the back of a deletion.
    async fn settled(&self, user: &str) {
        let until = Instant::now() + TIMEOUT;
        while Instant::now() < until {
            match self.queue.backlog(user).await {
                Ok(pressure) if pressure.tenant.items > 0 => tokio::time::sleep(TIMEOUT / 200).await,
                _ => return,
            }
        }
        tracing::warn!(user, "documents of a deleted user are still under way");
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
            self.remove_from_queue(job).await;
        }
        self.settled(user).await;
        Ok(deleted)
    }
}
