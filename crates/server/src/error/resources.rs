//! Errors of models, collections, jobs and the operation of the service.

use std::{sync::Arc, time::Duration};

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

    /// None of the named breakers is of a server at this address.
    pub(crate) fn unknown_breaker_address(name: &str, address: &str, known: &[Arc<str>]) -> Self {
        let message = match known {
            [] => format!("'{name}' has no server, so it has no address '{address}'; leave `address` out"),
            known => format!("'{name}' has no server at '{address}'; its addresses are {}", known.join(", ")),
        };
        Self { param: Some("address".into()), ..Self::new(StatusCode::NOT_FOUND, "not_found", message) }
    }

    /// The new configuration is invalid, so the old one stays in force.
    pub(crate) fn unusable_configuration(problems: &[String]) -> Self {
        let message = format!(
            "the new configuration is invalid, so the old one stays in force: {}",
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
        let message =
            format!("the cache in memory is cleared, but not the persistent cache: {reason}; retry");
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        let message = format!("model '{name}' is unknown; GET /v1/models lists the models");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// With several users, only an admin may download a model.
    pub(crate) fn admin_must_download(name: &str) -> Self {
        let message = format!("model '{name}' is not on this machine, and only an admin may download it");
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// The collection is already being moved to another model.
    pub(crate) fn already_moving(collection: &str) -> Self {
        let message = format!(
            "collection '{collection}' is being moved to another model; GET …/{collection}/stats shows the progress"
        );
        Self::new(StatusCode::CONFLICT, "already_moving", message)
    }

    /// The job names another model than that of its collection.
    pub(crate) fn other_model(collection: &str, bound: &ModelBinding, offered: &OfferedModel<'_>) -> Self {
        let OfferedModel { provider, model, dimensions } = *offered;
        let requested = match dimensions {
            Some(dimensions) => format!("{provider}:{model} with {dimensions} dimensions"),
            None => format!("{provider}:{model}"),
        };
        let message = format!(
            "collection '{collection}' is bound to {}:{} with {} dimensions (space {}), but the job requests {requested}; omit model, or use another collection",
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
        let message = format!("there is no dead letter '{id}'; GET /api/v1/embeddings/dlq lists them");
        Self {
            param: Some("entry_id".into()),
            ..Self::new(StatusCode::NOT_FOUND, "entry_not_found", message)
        }
    }

    /// The dead letter cannot be requeued.
    pub(crate) fn dead_letter_not_usable(reason: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "entry_not_usable", reason)
    }

    /// The job cannot be changed any more.
    pub(crate) fn job_ended(id: &JobId, reason: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "job_ended", format!("job {id} cannot be changed: {reason}"))
    }

    /// The idempotency key was used for another request.
    pub(crate) fn idempotency_conflict(job: &JobId) -> Self {
        let message =
            format!("this Idempotency-Key was used for another request, which is job {job}; use a new key");
        Self {
            param: Some("Idempotency-Key".into()),
            ..Self::new(StatusCode::CONFLICT, "idempotency_conflict", message)
        }
    }

    /// The backlog of the queue has reached its limit.
    pub(crate) fn backlog(backlog: &BacklogExceeded) -> Self {
        let scope = if backlog.own { "your share of the queue is full" } else { "the queue is full" };
        // The longer the oldest document waits, the slower the queue is.
        let wait = (backlog.oldest / 10).clamp(Duration::from_secs(5), Duration::from_secs(120));
        Self {
            retry_after: Some(wait),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                format!("{scope}: {}; retry after the time in Retry-After", backlog.reason),
            )
        }
    }

    /// The texts of one job exceed the limit of the queue.
    pub(crate) fn job_too_large(limit: u64) -> Self {
        let message = format!(
            "the job's texts exceed the queue's limit of {} MiB; submit several jobs, one after another",
            limit >> 20
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "job_too_large", message)
    }
}

/// The model that a job requests.
pub(crate) struct OfferedModel<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) dimensions: Option<usize>,
}

/// The limit of the backlog that is reached.
pub(crate) struct BacklogExceeded {
    /// Whether it is the caller's own limit and not that of all callers.
    pub(crate) own: bool,
    pub(crate) reason: String,
    /// How long the oldest document has waited.
    pub(crate) oldest: Duration,
}
