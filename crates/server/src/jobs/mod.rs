//! Jobs at the edge: how they are taken in, cancelled, tried again. What is done to their documents, `pipeline`
//! knows; what a job looks like on the wire is not known here.

mod actions;
pub(crate) mod dead_letters;
mod submit;

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{Backlog, BacklogSize, Job, JobId, JobStore, Queue};
use uuid::Uuid;

pub(crate) use submit::{JobHeaders, JobParams};

use crate::error::{ApiError, BacklogExceeded};

/// What the API needs for jobs.
#[derive(Clone)]
pub struct Jobs {
    /// The truth about them.
    pub store: Arc<dyn JobStore>,
    /// Who does what next.
    pub queue: Arc<dyn Queue>,
    /// How much may wait.
    pub limits: JobLimits,
}

/// How much may wait, and how long what has ended is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// Documents of one job that come as lines; as one JSON body, at most 10 000 come anyway.
    pub documents: u32,
    /// A tenant with more than this waiting is asked to come back later.
    pub tenant: BacklogLimit,
    /// The same for all tenants together.
    pub all: BacklogLimit,
    /// Jobs that ended this long ago are forgotten.
    pub retention: Duration,
}

/// How much may wait before new jobs are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogLimit {
    /// Documents.
    pub items: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// Age of the oldest.
    pub age: Duration,
}

impl Jobs {
    /// A job of a user, or the answer that there is none.
    pub(crate) async fn find(&self, user: &str, id: &str) -> Result<Job, ApiError> {
        let unknown = || ApiError::unknown_job(id);
        let job = job_id(id).ok_or_else(unknown)?;
        self.store.job(user, job).await?.ok_or_else(unknown)
    }

    /// Refuses new work while too much waits, or while the queue is away.
    async fn admit(&self, user: &str) -> Result<(), ApiError> {
        self.check_backlog(self.queue.backlog(user).await?, 0)
    }

    /// Refuses more of a job of which so many bytes have come. A queue that is away is no reason: they are in the job
    /// store, and get into the queue when it is back.
    async fn admit_more(&self, user: &str, bytes: u64) -> Result<(), ApiError> {
        match self.queue.backlog(user).await {
            Ok(pressure) => self.check_backlog(pressure, bytes),
            Err(_) => Ok(()),
        }
    }

    fn check_backlog(&self, pressure: Backlog, bytes: u64) -> Result<(), ApiError> {
        let sides = [(true, pressure.tenant, self.limits.tenant), (false, pressure.all, self.limits.all)];
        for (own, asked, limit) in sides {
            if bytes >= limit.bytes {
                return Err(ApiError::job_too_large(limit.bytes));
            }
            let asked = BacklogSize { bytes: asked.bytes + bytes, ..asked };
            if let Some(reason) = limit.exceeded_by(asked) {
                return Err(ApiError::backlog(&BacklogExceeded { own, reason, oldest: asked.oldest }));
            }
        }
        Ok(())
    }
}

impl BacklogLimit {
    /// What of this is reached. An empty queue takes whatever one request may hold.
    fn exceeded_by(&self, asked: BacklogSize) -> Option<String> {
        if asked.items == 0 {
            None
        } else if asked.items >= self.items {
            Some(format!("{} documents wait, {} may", asked.items, self.items))
        } else if asked.bytes >= self.bytes {
            Some(format!("{} MiB of text wait, {} MiB may", asked.bytes >> 20, self.bytes >> 20))
        } else if asked.oldest >= self.age {
            Some(format!(
                "the oldest document waits for {} s, {} s may pass",
                asked.oldest.as_secs(),
                self.age.as_secs()
            ))
        } else {
            None
        }
    }
}

/// A job's id as it stands in a path. What is no id is no job's.
pub(crate) fn job_id(text: &str) -> Option<JobId> {
    Uuid::try_parse(text).ok().map(JobId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_takes_anything_and_a_full_one_says_what_is_full() {
        let limit = BacklogLimit { items: 10, bytes: 1 << 20, age: Duration::from_secs(60) };
        let asked =
            |items, bytes, seconds| BacklogSize { items, bytes, oldest: Duration::from_secs(seconds) };
        assert_eq!(limit.exceeded_by(asked(0, 0, 0)), None);
        assert_eq!(limit.exceeded_by(asked(9, (1 << 20) - 1, 59)), None);
        assert!(limit.exceeded_by(asked(10, 1, 1)).unwrap().contains("10 documents"));
        assert!(limit.exceeded_by(asked(1, 1 << 20, 1)).unwrap().contains("1 MiB"));
        assert!(limit.exceeded_by(asked(1, 1, 60)).unwrap().contains("60 s"));
    }
}
