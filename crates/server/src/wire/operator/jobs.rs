//! What operators do to jobs, in the words of the replaced service.

use std::time::Duration;

use embeddery_pipeline::{Job, Priority, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::ApiError,
    wire::{field::whole_number, jobs::view::parse_priority},
};

/// A job to skip.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SkipJobRequest {
    pub(crate) job_id: String,
    /// Accepted for clients of the replaced service, at least 60: a job is skipped at once and stays skipped.
    #[serde(default, deserialize_with = "whole_number::<60, { usize::MAX }, _>")]
    #[schema(value_type = Option<u64>, minimum = 60)]
    ttl_seconds: Option<usize>,
}

impl SkipJobRequest {
    pub(crate) fn ttl_seconds(&self) -> usize {
        self.ttl_seconds.unwrap_or(604_800)
    }
}

/// A priority for a job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BumpJobPriorityRequest {
    pub(crate) job_id: String,
    /// `high` (goes first), `normal` or `low`.
    priority: String,
    /// Accepted for clients of the replaced service, 1 to 86400: the job keeps its priority.
    #[serde(default, deserialize_with = "whole_number::<1, 86_400, _>")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<usize>,
}

impl BumpJobPriorityRequest {
    pub(crate) fn priority(&self) -> Result<Priority, ApiError> {
        parse_priority(&self.priority)
    }

    pub(crate) fn ttl_seconds(&self) -> usize {
        self.ttl_seconds.unwrap_or(600)
    }
}

/// A job is skipped.
#[derive(Serialize, ToSchema)]
pub(crate) struct SkipJobResponse {
    pub(crate) ok: bool,
    pub(crate) job_id: String,
    pub(crate) ttl_seconds: usize,
}

/// Which job.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobSkipStatusQuery {
    pub(crate) job_id: String,
}

/// Whether a job is skipped.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobSkipStatusResponse {
    pub(crate) job_id: String,
    pub(crate) skipped: bool,
}

/// A job has another priority.
#[derive(Serialize, ToSchema)]
pub(crate) struct BumpJobPriorityResponse {
    pub(crate) status: &'static str,
    pub(crate) job_id: String,
    pub(crate) priority: &'static str,
    pub(crate) ttl_seconds: usize,
}

/// Which key: one of the two at least.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LedgerQuery {
    /// The header `Idempotency-Key` of a submission.
    pub(crate) idempotency_key: Option<String>,
    /// Of the replaced service. Here a document's task is identified by its job and index, and has no key of its own.
    pub(crate) dedupe_key: Option<String>,
}

/// The jobs of idempotency keys.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerResponse {
    pub(crate) idempotency: Option<LedgerEntry>,
    /// Always `null`.
    pub(crate) dedupe: Option<LedgerEntry>,
}

/// The job of a key.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerEntry {
    key: String,
    /// `in_progress`, `completed` or `failed`
    status: &'static str,
    /// Seconds since 1970 of the last change that the job's times show.
    ts: u64,
    job_id: String,
    /// The same as JSON.
    raw: String,
    /// How long the key is kept; `null` while the job runs.
    ttl_seconds: Option<u64>,
}

impl LedgerEntry {
    pub(crate) fn new(key: String, job: &Job, retention: Duration) -> Self {
        let status = match job.status {
            Status::Pending | Status::Running => "in_progress",
            Status::Completed | Status::Partial => "completed",
            Status::Failed | Status::Cancelled => "failed",
        };
        let ts = job.ended_at_ms.or(job.started_at_ms).unwrap_or(job.submitted_at_ms) / 1000;
        let job_id = job.id.to_string();
        let raw = json!({"status": status, "ts": ts, "job_id": job_id}).to_string();
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let ttl_seconds =
            job.ended_at_ms.map(|ended| (ended / 1000 + retention.as_secs()).saturating_sub(now));
        Self { key, status, ts, job_id, raw, ttl_seconds }
    }
}
