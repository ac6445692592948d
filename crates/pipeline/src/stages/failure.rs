//! What a failure means for a document: its own fault for good, its own fault for now, or nobody's whom waiting
//! would cost an attempt.

use std::time::Duration;

use embeddery_accounts::ledger::{Counter, QuotaExceeded};
use embeddery_core::{EmbedError, ErrorKind, Fault, Retry};
use embeddery_store::{StoreError, StoreErrorKind};

use super::reason;
use crate::{JobError, Reason};

/// Why a document is not done.
#[derive(Clone, Debug, PartialEq)]
pub enum StageFailure {
    /// It will never work as it is: the document fails.
    Failed(Reason),
    /// It may work another time; charged to the document.
    Retry {
        /// Why.
        reason: Reason,
        /// What whoever failed has asked for.
        after: Option<Duration>,
    },
    /// It is not the document's fault: it waits and is charged nothing.
    Defer {
        /// Why.
        reason: Reason,
        /// How long.
        after: Duration,
    },
}

/// How long nothing is tried that only an operator can mend: a key, a full disk, a quota.
const OPERATOR_RETRY_DELAY: Duration = Duration::from_secs(30);

/// How long is waited for what comes back by itself.
const TRANSIENT_RETRY_DELAY: Duration = Duration::from_secs(2);

impl StageFailure {
    /// Nothing came of it in all the time there is.
    pub(crate) fn timed_out(deadline: Duration) -> Self {
        Self::again("timeout", format!("the stage took more than {} s", deadline.as_secs()))
    }

    pub(super) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(reason(code, message))
    }

    pub(super) fn again(code: &str, message: impl Into<String>) -> Self {
        Self::Retry { reason: reason(code, message), after: None }
    }

    pub(super) fn of_jobs(error: &JobError) -> Self {
        let (code, after) = match error {
            JobError::Unavailable(_) => ("job_store_unavailable", TRANSIENT_RETRY_DELAY),
            JobError::Full(_) => ("disk_full", OPERATOR_RETRY_DELAY),
            JobError::TooNew(_) => ("newer_version", OPERATOR_RETRY_DELAY),
            JobError::Internal(message) => {
                tracing::error!(message, "the job store failed");
                return Self::again("internal", "the job store failed; the log knows more");
            }
        };
        Self::Defer { reason: reason(code, error.to_string()), after }
    }

    pub(super) fn of_store(error: &StoreError) -> Self {
        let wait = |code, after| Self::Defer { reason: reason(code, error.message.clone()), after };
        match &error.kind {
            StoreErrorKind::SpaceMismatch { .. } => Self::failed("space_mismatch", error.message.clone()),
            StoreErrorKind::Invalid | StoreErrorKind::Unsupported => {
                Self::failed("not_storable", error.message.clone())
            }
            StoreErrorKind::Full => wait("disk_full", OPERATOR_RETRY_DELAY),
            StoreErrorKind::Unavailable { after } => wait("store_unavailable", *after),
            StoreErrorKind::TooNew => wait("newer_version", OPERATOR_RETRY_DELAY),
            // Somebody deletes or moves what this writes to: the next time is another time.
            StoreErrorKind::NotFound
            | StoreErrorKind::Exists
            | StoreErrorKind::VectorMissing
            | StoreErrorKind::Migration => Self::again("collection_changed", error.message.clone()),
            StoreErrorKind::Internal => {
                tracing::error!(message = error.message, "the store failed");
                Self::again("internal", "the store failed; the log knows more")
            }
        }
    }

    pub(super) fn of_quota(exhausted: QuotaExceeded) -> Self {
        match exhausted {
            QuotaExceeded::Tokens { limit, used, wait } => Self::Defer {
                reason: reason(
                    "quota_exceeded",
                    format!(
                        "{used} of {limit} tokens of the day are used; the job goes on when there are new ones"
                    ),
                ),
                // A quota may be raised before the day is over.
                after: wait.min(10 * OPERATOR_RETRY_DELAY),
            },
            QuotaExceeded::Counter { counter, limit, used } => {
                let what = match counter {
                    Counter::StoredVectors => "stored vectors",
                    Counter::Jobs => "jobs",
                };
                let message = format!(
                    "{used} of {limit} {what} are used; delete some, or ask for more, then retry the job"
                );
                Self::failed("quota_exceeded", message)
            }
        }
    }
}

/// How long a provider is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pause {
    /// It was asked for.
    Asked(Duration),
    /// Nobody knows: longer each time.
    Guessed(Duration),
}

/// Who a gateway's failure is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FailureScope {
    /// One text, or the whole call when it has several: those are tried apart.
    Texts,
    /// One text or the provider: only another text tells.
    Unclear,
    /// The model as such, and every text the same.
    Model,
    /// The provider, for so long.
    Provider(Pause),
}

impl FailureScope {
    pub(super) fn of(error: &EmbedError) -> Self {
        let pause = |usual| match error.retry {
            Retry::After(after) => Pause::Asked(after),
            Retry::Backoff | Retry::Never => Pause::Guessed(usual),
        };
        match error.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::InputTooLong
            | ErrorKind::BatchTooLarge
            | ErrorKind::Internal => Self::Texts,
            ErrorKind::ModelNotFound | ErrorKind::Forbidden | ErrorKind::ModelUnusable => Self::Model,
            ErrorKind::UpstreamAuth => Self::Provider(Pause::Guessed(OPERATOR_RETRY_DELAY)),
            ErrorKind::RateLimited if error.retry == Retry::Never => {
                Self::Provider(Pause::Guessed(OPERATOR_RETRY_DELAY))
            }
            ErrorKind::Unavailable if error.fault != Fault::Upstream || error.retry == Retry::Never => {
                Self::Provider(Pause::Guessed(OPERATOR_RETRY_DELAY))
            }
            ErrorKind::BreakerOpen
            | ErrorKind::RateLimited
            | ErrorKind::ModelLoading { .. }
            | ErrorKind::Overloaded => Self::Provider(pause(TRANSIENT_RETRY_DELAY)),
            // A server that falls over may do so over one text.
            _ => Self::Unclear,
        }
    }
}

/// A stable code for what happened.
pub(super) fn code(error: &EmbedError) -> &'static str {
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

/// Nothing but the gateway's words about a model that cannot serve.
pub(super) fn of_model(error: &EmbedError) -> StageFailure {
    if error.kind == ErrorKind::ModelUnusable {
        return StageFailure::again(code(error), error.message.clone());
    }
    StageFailure::failed(code(error), error.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, fault: Fault, retry: Retry) -> EmbedError {
        EmbedError::new(kind, fault, retry, "words")
    }

    #[test]
    fn an_outage_is_nobodys_fault_and_a_crash_may_be_a_texts() {
        let open = error(ErrorKind::BreakerOpen, Fault::Us, Retry::After(Duration::from_secs(60)));
        assert_eq!(FailureScope::of(&open), FailureScope::Provider(Pause::Asked(Duration::from_secs(60))));
        let key = error(ErrorKind::UpstreamAuth, Fault::Us, Retry::Never);
        assert_eq!(FailureScope::of(&key), FailureScope::Provider(Pause::Guessed(OPERATOR_RETRY_DELAY)));
        let no_key = error(ErrorKind::Unavailable, Fault::Us, Retry::Never);
        assert_eq!(FailureScope::of(&no_key), FailureScope::Provider(Pause::Guessed(OPERATOR_RETRY_DELAY)));
        assert_eq!(
            FailureScope::of(&error(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff)),
            FailureScope::Unclear
        );
        assert_eq!(FailureScope::of(&EmbedError::invalid("no")), FailureScope::Texts);
        assert_eq!(FailureScope::of(&EmbedError::model_not_found("no")), FailureScope::Model);
    }

    #[test]
    fn a_full_disk_waits_and_a_wrong_space_fails() {
        let full = StoreError::new(StoreErrorKind::Full, "full");
        assert!(matches!(StageFailure::of_store(&full), StageFailure::Defer { .. }));
        let (a, b) = (embeddery_core::SpaceId::new("a"), embeddery_core::SpaceId::new("b"));
        let StageFailure::Failed(reason) = StageFailure::of_store(&StoreError::space_mismatch("c", &a, &b))
        else {
            unreachable!("a mismatch is for good");
        };
        assert!(reason.message.contains("'a'") && reason.message.contains("'b'"), "{}", reason.message);
    }
}
