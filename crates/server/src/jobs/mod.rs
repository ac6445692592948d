//! Background jobs: submit, cancel, retry, dead letters. The crate `embeddery-pipeline` processes their documents, and
//! `wire::jobs` has their JSON.

mod actions;
pub(crate) mod dead_letters;
mod submit;

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{Backlog, BacklogSize, Job, JobId, JobStore, Queue};
use uuid::Uuid;

pub(crate) use submit::{JobHeaders, JobParams};

use crate::error::{ApiError, BacklogExceeded};

/// The stores and limits of jobs.
#[derive(Clone)]
pub struct Jobs {
    /// Jobs and their documents. It is authoritative: the queue can be rebuilt from it.
    pub store: Arc<dyn JobStore>,
    /// Tasks for workers.
    pub queue: Arc<dyn Queue>,
    /// Limits for new jobs.
    pub limits: JobLimits,
}

/// Limits of jobs and of the queue, and the retention of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// Maximum documents of a job that is sent as lines. One that is sent as a JSON body has at most 10 000.
    pub documents: u32,
    /// Maximum backlog of one tenant. At this backlog its new jobs are rejected with a 429.
    pub tenant: BacklogLimit,
    /// Maximum backlog of all tenants together.
    pub all: BacklogLimit,
    /// How long ended jobs are kept.
    pub retention: Duration,
}

/// The backlog from which on new jobs are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogLimit {
    /// Number of documents.
    pub items: u64,
    /// Bytes of the documents' texts.
    pub bytes: u64,
    /// Age of the oldest document.
    pub age: Duration,
}

impl Jobs {
    /// A job of a user, or the error that it does not exist.
    pub(crate) async fn find(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let unknown = || ApiError::unknown_job(id);
        let job = parse_job_id(id).ok_or_else(unknown)?;
        self.store.job(user, job).await?.ok_or_else(unknown)
    }

    /// Rejects a new job if the backlog is too large or the queue is unavailable.
    async fn admit(&self, user: &str) -> Result<(), ApiError> {
        self.check_backlog(self.queue.backlog(user).await?, 0)
    }

    /// Rejects further documents of a job that has `bytes` so far, if the backlog is too large. An unavailable queue is no
    /// reason: the documents are in the job store, and are enqueued when the queue is available again.
    async fn admit_more(&self, user: &str, bytes: u64) -> Result<(), ApiError> {
        match self.queue.backlog(user).await {
            Ok(backlog) => self.check_backlog(backlog, bytes),
            Err(_) => Ok(()),
        }
    }

    fn check_backlog(&self, backlog: Backlog, bytes: u64) -> Result<(), ApiError> {
        let scopes = [(true, backlog.tenant, self.limits.tenant), (false, backlog.all, self.limits.all)];
        for (own, size, limit) in scopes {
            if bytes >= limit.bytes {
                return Err(ApiError::job_too_large(limit.bytes));
            }
            let size = BacklogSize { bytes: size.bytes + bytes, ..size };
            if let Some(reason) = limit.exceeded_by(size) {
                return Err(ApiError::backlog(&BacklogExceeded { own, reason, oldest: size.oldest }));
            }
        }
        Ok(())
    }
}

impl BacklogLimit {
    /// The limit that a backlog has reached, as a message. An empty queue accepts a job of any size.
    fn exceeded_by(&self, backlog: BacklogSize) -> Option<String> {
        if backlog.items == 0 {
            None
        } else if backlog.items >= self.items {
            Some(format!("{} documents are waiting; the limit is {}", backlog.items, self.items))
        } else if backlog.bytes >= self.bytes {
            Some(format!(
                "{} MiB of text are waiting; the limit is {} MiB",
                backlog.bytes >> 20,
                self.bytes >> 20
            ))
        } else if backlog.oldest >= self.age {
            Some(format!(
                "the oldest document has waited for {} s; the limit is {} s",
                backlog.oldest.as_secs(),
                self.age.as_secs()
            ))
        } else {
            None
        }
    }
}

/// Parses the id of a job. `None` if the text is not a UUID, so no job can have it.
pub(crate) fn parse_job_id(text: &str) -> Option<JobId> {
    Uuid::try_parse(text).ok().map(JobId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_accepts_any_job_and_a_full_one_names_the_limit() {
        let limit = BacklogLimit { items: 10, bytes: 1 << 20, age: Duration::from_secs(60) };
        let backlog =
            |items, bytes, seconds| BacklogSize { items, bytes, oldest: Duration::from_secs(seconds) };
        assert_eq!(limit.exceeded_by(backlog(0, 0, 0)), None);
        assert_eq!(limit.exceeded_by(backlog(9, (1 << 20) - 1, 59)), None);
        assert!(limit.exceeded_by(backlog(10, 1, 1)).unwrap().contains("10 documents"));
        assert!(limit.exceeded_by(backlog(1, 1 << 20, 1)).unwrap().contains("1 MiB"));
        assert!(limit.exceeded_by(backlog(1, 1, 60)).unwrap().contains("60 s"));
    }
}
