//! Changes of existing jobs: cancel, retry, delete all jobs of a user.

use std::time::{Duration, Instant};

use embeddery_pipeline::{Job, JobId, Page, Status, Task};

use super::Jobs;
use crate::error::ApiError;

/// Jobs, or tasks, per page.
const PAGE_SIZE: usize = 500;
/// Maximum time that a deletion waits for documents in progress.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which a deletion looks for documents in progress.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Jobs {
    /// Cancels a job. A cancelled job stays cancelled; a job that ended otherwise is an error.
    pub(crate) async fn cancel(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let job = self.find(user, id).await?;
        let cancelled = self.store.cancel(user, job.id).await?;
        if !cancelled && job.status != Status::Cancelled {
            let current = self.find(user, id).await?;
            if current.status != Status::Cancelled {
                return Err(ApiError::job_ended(&job.id, "it has already ended"));
            }
        }
        self.remove_from_queue(job.id).await;
        self.find(user, id).await
    }

    /// Removes a job's tasks from the queue. If that fails, the workers drop the tasks, because the job store says that
    /// the job has ended.
    pub(crate) async fn remove_from_queue(&self, job: JobId) {
        if let Err(error) = self.queue.cancel(job).await {
            tracing::warn!(%error, %job, "removing an ended job's tasks from the queue failed");
        }
    }

    /// Retries a job's failed documents, each from the stage at which it failed.
    pub(crate) async fn retry(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let job = self.find(user, id).await?;
        if job.status == Status::Cancelled {
            return Err(ApiError::job_ended(&job.id, "it was cancelled; submit its documents again"));
        }
        self.admit(user).await?;
        let retried = self.store.retry(user, job.id).await?;
        if retried.is_empty() {
            return Err(ApiError::job_ended(&job.id, "none of its documents has failed"));
        }
        // Enqueueing a task also removes its dead letter.
        for page in retried.chunks(PAGE_SIZE) {
            let tasks: Vec<_> = page.iter().map(Task::for_document).collect();
            if let Err(error) = self.queue.enqueue(&tasks).await {
                tracing::warn!(%error, job = %job.id, "enqueueing retried documents failed; the reconciler enqueues them later");
                break;
            }
        }
        self.find(user, id).await
    }

    /// Waits until no document of a user is in progress, because its vectors would be stored after the deletion.
    async fn wait_until_idle(&self, user: &str) {
        let deadline = Instant::now() + DELETE_TIMEOUT;
        while Instant::now() < deadline {
            match self.queue.backlog(user).await {
                Ok(backlog) if backlog.tenant.items > 0 => tokio::time::sleep(POLL_INTERVAL).await,
                _ => return,
            }
        }
        tracing::warn!(user, "documents of a deleted user are still in progress");
    }

    /// Deletes all jobs of a user, and their tasks in the queue. Returns the number of jobs.
    pub(crate) async fn delete_all(&self, user: &str) -> Result<u64, ApiError> {
        let (mut after, mut unfinished) = (None, Vec::new());
        loop {
            let page = self.store.jobs(user, Page { state: None, after, limit: PAGE_SIZE }).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            unfinished.extend(page.iter().filter(|job| job.ended_at_ms.is_none()).map(|job| job.id));
        }
        let deleted = self.store.delete_tenant(user).await?;
        for job in unfinished {
            self.remove_from_queue(job).await;
        }
        self.wait_until_idle(user).await;
        Ok(deleted)
    }
}
