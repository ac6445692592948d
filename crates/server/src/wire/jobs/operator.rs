//! What operators do to jobs, in the words of the replaced service.

use std::time::Duration;

use embeddery_pipeline::{Job, Priority, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::view::read_priority;
use crate::{error::ApiError, wire::fields::Fields};

/// A job to be left out.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct SkipRequest {
    job_id: String,
    /// Taken for the replaced service's sake, at least 60: a job is skipped at once and stays so.
    ttl_seconds: Option<u64>,
}

/// A priority for a job.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct BumpRequest {
    job_id: String,
    /// `high` (goes first), `normal` or `low`.
    priority: String,
    /// Taken for the replaced service's sake, 1 to 86400: the job keeps its priority.
    ttl_seconds: Option<u64>,
}

/// What is asked of a job.
pub(crate) struct Asked<T> {
    pub(crate) job_id: String,
    pub(crate) what: T,
    pub(crate) ttl_seconds: usize,
}

impl Asked<()> {
    pub(crate) fn skip(mut fields: Fields) -> Result<Self, ApiError> {
        let job_id = job_id(&mut fields)?;
        let ttl_seconds = fields.bounded("ttl_seconds", 60..=usize::MAX)?.unwrap_or(604_800);
        fields.finish()?;
        Ok(Self { job_id, what: (), ttl_seconds })
    }
}

impl Asked<Priority> {
    pub(crate) fn bump(mut fields: Fields) -> Result<Self, ApiError> {
        let job_id = job_id(&mut fields)?;
        let word = fields.text("priority")?;
        let ttl_seconds = fields.bounded("ttl_seconds", 1..=86_400)?.unwrap_or(600);
        let Some(word) = word else {
            let message = "priority is missing; it must be high, normal or low";
            return Err(fields.unfit(Some("priority".into()), message.into()));
        };
        fields.finish()?;
        Ok(Self { job_id, what: read_priority("priority", &word)?, ttl_seconds })
    }
}

fn job_id(fields: &mut Fields) -> Result<String, ApiError> {
    match fields.text("job_id")? {
        Some(id) => Ok(id),
        None => Err(fields.unfit(Some("job_id".into()), "job_id is missing".into())),
    }
}

/// A job is left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct SkipAnswer {
    pub(crate) ok: bool,
    pub(crate) job_id: String,
    pub(crate) ttl_seconds: usize,
}

/// Which job.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SkipQuery {
    pub(crate) job_id: String,
}

/// Whether a job is left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct SkippedAnswer {
    pub(crate) job_id: String,
    pub(crate) skipped: bool,
}

/// A job has another priority.
#[derive(Serialize, ToSchema)]
pub(crate) struct BumpAnswer {
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
    /// Of the replaced service. Here a document's task is known by its job and place, and there is no ledger of them.
    pub(crate) dedupe_key: Option<String>,
}

/// What is known of keys.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerAnswer {
    pub(crate) idempotency: Option<LedgerEntry>,
    /// Always `null`.
    pub(crate) dedupe: Option<LedgerEntry>,
}

/// What is known of a key.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerEntry {
    key: String,
    /// `in_progress`, `completed` or `failed`
    status: &'static str,
    /// Seconds since 1970 of the last change that the job's own times show.
    ts: u64,
    job_id: String,
    /// The same as JSON.
    raw: String,
    /// How long the key is still known; `null` while the job runs.
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
