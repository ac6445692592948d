//! What a failure means for a document: it fails for good, it is retried at the cost of an attempt, or it is deferred
//! and keeps its attempts.

use std::time::Duration;

use embeddery_accounts::ledger::{Counter, QuotaExceeded};
use embeddery_core::{EmbedError, ErrorKind, Fault, Retry};
use embeddery_ingest::WriteError;
use embeddery_store::{StoreError, StoreErrorKind};

use super::reason;
use crate::{JobError, Reason};

/// Why a stage has no result for a document.
#[derive(Clone, Debug, PartialEq)]
pub enum StageFailure {
    /// The document cannot succeed as it is: it fails.
    Failed(Reason),
    /// Another attempt may succeed. It counts against the document's attempts.
    Retry {
        /// The last failure.
        reason: Reason,
        /// The delay that the failed service asked for.
        after: Option<Duration>,
    },
    /// The failure is not due to the document. The document waits, and its attempts are not counted.
    Defer {
        /// What the document waits for.
        reason: Reason,
        /// The delay.
        after: Duration,
    },
}

/// Delay for a failure that an operator must resolve: a key, a full disk, a quota.
const OPERATOR_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Delay for a failure that resolves itself.
const TRANSIENT_RETRY_DELAY: Duration = Duration::from_secs(2);

impl StageFailure {
    /// The stage did not end before its deadline.
    pub(crate) fn timed_out(deadline: Duration) -> Self {
        Self::retry("timeout", format!("the stage took more than {} s", deadline.as_secs()))
    }

    pub(super) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(reason(code, message))
    }

    pub(super) fn retry(code: &str, message: impl Into<String>) -> Self {
        Self::Retry { reason: reason(code, message), after: None }
    }

    pub(super) fn from_job_error(error: &JobError) -> Self {
        let (code, after) = match error {
            JobError::Unavailable(_) => ("job_store_unavailable", TRANSIENT_RETRY_DELAY),
            JobError::Full(_) => ("disk_full", OPERATOR_RETRY_DELAY),
            JobError::TooNew(_) => ("newer_version", OPERATOR_RETRY_DELAY),
            JobError::Internal(message) => {
                tracing::error!(error = message, "the job store failed");
                return Self::retry("internal", "the job store failed; see the log of the worker");
            }
        };
        Self::Defer { reason: reason(code, error.to_string()), after }
    }

    pub(super) fn from_store_error(error: &StoreError) -> Self {
        let defer = |code, after| Self::Defer { reason: reason(code, error.message.clone()), after };
        match &error.kind {
            StoreErrorKind::SpaceMismatch { .. } => Self::failed("space_mismatch", error.message.clone()),
            StoreErrorKind::Invalid | StoreErrorKind::Unsupported => {
                Self::failed("not_storable", error.message.clone())
            }
            StoreErrorKind::Full => defer("disk_full", OPERATOR_RETRY_DELAY),
            StoreErrorKind::Unavailable { after } => defer("store_unavailable", *after),
            StoreErrorKind::TooNew => defer("newer_version", OPERATOR_RETRY_DELAY),
            // Another writer deletes or changes the collection: the next attempt sees the result.
            StoreErrorKind::NotFound
            | StoreErrorKind::Exists
            | StoreErrorKind::VectorMissing
            | StoreErrorKind::Migration => Self::retry("collection_changed", error.message.clone()),
            StoreErrorKind::Internal => {
                tracing::error!(error = error.message, "the vector store failed");
                Self::retry("internal", "the vector store failed; see the log of the worker")
            }
        }
    }

    pub(super) fn from_quota(exceeded: QuotaExceeded) -> Self {
        match exceeded {
            QuotaExceeded::Tokens { limit, used, wait } => Self::Defer {
                reason: reason(
                    "quota_exceeded",
                    format!("{used} of {limit} tokens of the day are used; the job continues the next day"),
                ),
                // An operator may raise the quota before the day ends.
                after: wait.min(10 * OPERATOR_RETRY_DELAY),
            },
            QuotaExceeded::Counter { counter, limit, used } => {
                let counted = match counter {
                    Counter::StoredVectors => "stored vectors",
                    Counter::Jobs => "jobs",
                };
                let message = format!(
                    "{used} of {limit} {counted} are used; delete some or have the quota raised, then retry the job"
                );
                Self::failed("quota_exceeded", message)
            }
        }
    }

    /// The model cannot serve any text.
    pub(super) fn from_model_error(error: &EmbedError) -> Self {
        if error.kind == ErrorKind::ModelUnusable {
            return Self::retry(error_code(error), error.message.clone());
        }
        Self::failed(error_code(error), error.message.clone())
    }
}

impl From<WriteError> for StageFailure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => Self::from_store_error(&error),
            WriteError::StoreTimeout => Self::retry("timeout", "the vector store did not answer in time"),
            WriteError::QuotaExceeded(exceeded) => Self::from_quota(exceeded),
            WriteError::QuotaReserved => Self::Defer {
                reason: reason(
                    "quota_reserved",
                    "other writes of the user have reserved the rest of the vector quota",
                ),
                after: TRANSIENT_RETRY_DELAY,
            },
            // A counter that may be too high must not fail a document for good.
            WriteError::QuotaUnknown(why) => {
                Self::retry("store_unavailable", format!("the vector quota cannot be checked: {why}"))
            }
        }
    }
}

/// How long a provider is not called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pause {
    /// The provider asked for this delay.
    Requested(Duration),
    /// The provider did not name a delay. This one doubles with each pause in a row.
    Backoff(Duration),
}

/// What a failure of the gateway is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FailureScope {
    /// The texts: those of a call with several texts are sent apart.
    Texts,
    /// The texts or the provider. The answer to another text tells which.
    Unclear,
    /// The model, whatever the text.
    Model,
    /// The provider, for the duration of the pause.
    Provider(Pause),
}

impl FailureScope {
    pub(super) fn from_error(error: &EmbedError) -> Self {
        let pause = |delay| match error.retry {
            Retry::After(after) => Pause::Requested(after),
            Retry::Backoff | Retry::Never => Pause::Backoff(delay),
        };
        match error.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::InputTooLong
            | ErrorKind::BatchTooLarge
            | ErrorKind::Internal => Self::Texts,
            ErrorKind::ModelNotFound | ErrorKind::Forbidden | ErrorKind::ModelUnusable => Self::Model,
            ErrorKind::UpstreamAuth => Self::Provider(Pause::Backoff(OPERATOR_RETRY_DELAY)),
            ErrorKind::RateLimited if error.retry == Retry::Never => {
                Self::Provider(Pause::Backoff(OPERATOR_RETRY_DELAY))
            }
            ErrorKind::Unavailable if error.fault != Fault::Upstream || error.retry == Retry::Never => {
                Self::Provider(Pause::Backoff(OPERATOR_RETRY_DELAY))
            }
            ErrorKind::BreakerOpen
            | ErrorKind::RateLimited
            | ErrorKind::ModelLoading { .. }
            | ErrorKind::Overloaded => Self::Provider(pause(TRANSIENT_RETRY_DELAY)),
            // A text can make a server crash.
            _ => Self::Unclear,
        }
    }
}

/// A stable code for a failure of the gateway.
pub(super) fn error_code(error: &EmbedError) -> &'static str {
    match error.kind {
        ErrorKind::InvalidRequest => "invalid_input",
        ErrorKind::InputTooLong | ErrorKind::BatchTooLarge => "input_too_long",
        ErrorKind::ModelNotFound => "model_not_found",
        ErrorKind::ModelLoading { .. } => "model_loading",
        ErrorKind::ModelUnusable => "model_unusable",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::RateLimited => "rate_limited",
        ErrorKind::UpstreamAuth => "upstream_auth",
        ErrorKind::BreakerOpen => "breaker_open",
        ErrorKind::InvalidUpstreamResponse => "bad_upstream_answer",
        ErrorKind::Unavailable => "provider_unavailable",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, fault: Fault, retry: Retry) -> EmbedError {
        EmbedError::new(kind, fault, retry, "words")
    }

    #[test]
    fn an_outage_concerns_the_provider_and_a_crash_may_concern_the_texts() {
        let open = error(ErrorKind::BreakerOpen, Fault::Us, Retry::After(Duration::from_secs(60)));
        assert_eq!(
            FailureScope::from_error(&open),
            FailureScope::Provider(Pause::Requested(Duration::from_secs(60)))
        );
        let operator = FailureScope::Provider(Pause::Backoff(OPERATOR_RETRY_DELAY));
        let wrong_key = error(ErrorKind::UpstreamAuth, Fault::Us, Retry::Never);
        assert_eq!(FailureScope::from_error(&wrong_key), operator);
        let no_key = error(ErrorKind::Unavailable, Fault::Us, Retry::Never);
        assert_eq!(FailureScope::from_error(&no_key), operator);
        assert_eq!(
            FailureScope::from_error(&error(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff)),
            FailureScope::Unclear
        );
        assert_eq!(FailureScope::from_error(&EmbedError::invalid("no")), FailureScope::Texts);
        assert_eq!(FailureScope::from_error(&EmbedError::model_not_found("no")), FailureScope::Model);
    }

    #[test]
    fn a_full_disk_defers_and_a_wrong_space_fails() {
        let full = StoreError::new(StoreErrorKind::Full, "full");
        assert!(matches!(StageFailure::from_store_error(&full), StageFailure::Defer { .. }));
        let (a, b) = (embeddery_core::SpaceId::new("a"), embeddery_core::SpaceId::new("b"));
        let mismatch = StoreError::space_mismatch("c", &a, &b);
        let StageFailure::Failed(reason) = StageFailure::from_store_error(&mismatch) else {
            unreachable!("a mismatch fails for good");
        };
        assert!(reason.message.contains("'a'") && reason.message.contains("'b'"), "{}", reason.message);
    }
}
