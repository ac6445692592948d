//! Errors of models, collections, jobs and the operation of the service.

use std::time::Duration;

use axum::http::StatusCode;
use embeddery_pipeline::JobId;
use embeddery_store::ModelBinding;
use serde_json::json;

use super::ApiError;

impl ApiError {
    pub(crate) fn unknown_breaker(name: &str) -> Self {
        let message = format!(
            "there is no circuit breaker '{name}'; GET /api/v1/embeddings/circuit-breakers lists them"
        );
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The reloaded configuration is invalid.
    pub(crate) fn unusable_configuration(problems: &[String]) -> Self {
        let message = format!(
            "the configuration stays as it was, because the new one is not usable: {}",
            problems.join("; ")
        );
        let detail = Some(json!({"problems": problems}));
        Self { detail, ..Self::new(StatusCode::CONFLICT, "unusable_configuration", message) }
    }

    /// The process no longer reloads its configuration.
    pub(crate) fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "this process is shutting down; send the request to its successor",
        )
    }

    /// The persistent part of the cache could not be reached.
    pub(crate) fn cache_unavailable(reason: &str) -> Self {
        let message = format!("memory is cleared, but not the cache's second level: {reason}; try again");
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        let message = format!("model '{name}' is not known here; GET /v1/models lists what is");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// With several users, only an admin may download a model.
    pub(crate) fn admin_must_download(name: &str) -> Self {
        let message = format!("model '{name}' is not on this machine, and only an admin may bring it here");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// A move of the collection to another model is running; only one may.
    pub(crate) fn already_moving(collection: &str) -> Self {
        let message = format!(
            "collection '{collection}' is being moved to another model; GET …/{collection}/stats shows how far it is"
        );
        Self::new(StatusCode::CONFLICT, "already_moving", message)
    }

    /// A collection has the vectors of one model, a job asks for those of another.
    pub(crate) fn other_model(collection: &str, bound: &ModelBinding, offered: &OfferedModel<'_>) -> Self {
        let OfferedModel { provider, model, dimensions } = *offered;
        let requested = match dimensions {
            Some(length) => format!("{provider}:{model} with {length} dimensions"),
            None => format!("{provider}:{model}"),
        };
        let message = format!(
            "collection '{collection}' is bound to {}:{} with {} dimensions (space {}), the job asks for {requested}; leave model out, or take another collection",
            bound.provider, bound.model, bound.dim, bound.space
        );
        Self {
            param: Some("model".into()),
            detail: Some(json!({
                "message": message,
                "collection_space": bound.space.as_str(),
                "collection_model": bound.model,
                "collection_provider": bound.provider,
                "offered_model": model,
                "offered_provider": provider,
            })),
            ..Self::new(StatusCode::CONFLICT, "space_mismatch", message)
        }
    }

    /// The user has no such job. The job of another user gives the same error.
    pub(crate) fn unknown_job(id: &str) -> Self {
        let message = format!("there is no job '{id}'; GET /api/v1/embeddings/jobs lists yours");
        Self { param: Some("job_id".into()), ..Self::new(StatusCode::NOT_FOUND, "job_not_found", message) }
    }

    /// There is no such dead letter, or no longer.
    pub(crate) fn unknown_dead_letter(id: &str) -> Self {
        let message = format!("DLQ entry not found: '{id}'; GET /api/v1/embeddings/dlq lists them");
        Self {
            param: Some("entry_id".into()),
            ..Self::new(StatusCode::NOT_FOUND, "entry_not_found", message)
        }
    }

    /// The dead letter cannot be requeued.
    pub(crate) fn dead_letter_not_usable(why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "entry_not_usable", why)
    }

    /// The job cannot be changed any more.
    pub(crate) fn job_ended(id: &JobId, why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "job_ended", format!("job {id} cannot be changed: {why}"))
    }

    /// The idempotency key was used for another request.
    pub(crate) fn idempotency_conflict(job: &JobId) -> Self {
        let message =
            format!("this Idempotency-Key was used for another request, which is job {job}; take a new key");
        Self {
            param: Some("Idempotency-Key".into()),
            ..Self::new(StatusCode::CONFLICT, "idempotency_conflict", message)
        }
    }

    /// The queue has too much work already.
    pub(crate) fn backlog(backlog: &BacklogExceeded) -> Self {
        let whose = if backlog.own { "you have too much in the queue" } else { "the queue is full" };
        // The longer the oldest document waits, the slower the queue is.
        let wait = (backlog.oldest / 10).clamp(Duration::from_secs(5), Duration::from_secs(120));
        Self {
            retry_after: Some(wait),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                format!("{whose}: {}; come back after Retry-After", backlog.reason),
            )
        }
    }

    /// The texts of one job exceed what the queue may hold.
    pub(crate) fn job_too_large(limit: u64) -> Self {
        let message = format!(
            "the job's texts are more than the {} MiB that may wait; send them as several jobs, one after another",
            limit >> 20
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "job_too_large", message)
    }
}

/// The model that a job asks for.
pub(crate) struct OfferedModel<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) dimensions: Option<usize>,
}

/// Why no more jobs are accepted at the moment.
pub(crate) struct BacklogExceeded {
    /// The caller's own limit is reached, not that of all callers.
    pub(crate) own: bool,
    pub(crate) reason: String,
    /// How long the oldest document waits.
    pub(crate) oldest: Duration,
}
