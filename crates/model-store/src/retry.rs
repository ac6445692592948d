//! Retries of requests to the hub. Only transient failures are retried. A transfer that makes progress starts a new
//! count of retries, so a large file survives a bad connection.

use std::time::Duration;

use embeddery_core::{Backoff, SourceError, SourceErrorKind};

/// How often and after which pauses failed requests are retried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Maximum number of retries without progress.
    pub max_retries: u32,
    /// The pause after the first failure. It doubles with each further failure.
    pub initial_backoff: Duration,
    /// The maximum pause. If the hub asks for a longer one (`Retry-After`), the download fails and names it.
    pub max_backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 5,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
        }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A later attempt may succeed. `retry_after` is the pause that the hub asks for.
    Transient { error: SourceError, retry_after: Option<Duration> },
    /// A retry would not help.
    Final(SourceError),
}

/// Counts the retries of one request or transfer.
pub(crate) struct Retries {
    policy: RetryPolicy,
    failures: u32,
}

impl Retries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Resets the count after progress.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next attempt. Returns the error if there is none.
    pub(crate) async fn wait_after(&mut self, failure: Failure) -> Result<(), SourceError> {
        let (error, retry_after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient { error, retry_after } => (error, retry_after),
        };
        let pause = self.next_pause(&error, retry_after)?;
        tracing::warn!(%error, pause_ms = pause.as_millis(), "download failed; retrying");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next_pause(
        &mut self,
        error: &SourceError,
        retry_after: Option<Duration>,
    ) -> Result<Duration, SourceError> {
        if let Some(wait) = retry_after.filter(|wait| *wait > self.policy.max_backoff) {
            let message = format!("{error}; the hub asks to retry after {} s", wait.as_secs());
            return Err(SourceError::new(SourceErrorKind::Unreachable, message));
        }
        if self.failures >= self.policy.max_retries {
            let message = format!("{error} (tried {} times)", self.failures + 1);
            return Err(SourceError::new(error.kind, message));
        }
        let doubled =
            Backoff::new(self.policy.initial_backoff, self.policy.max_backoff).ceiling(self.failures);
        self.failures += 1;
        Ok(retry_after.unwrap_or(doubled).min(self.policy.max_backoff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_retry_after_takes_precedence() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy { max_retries: 5, initial_backoff: seconds(1), max_backoff: seconds(5) };
        let error = SourceError::new(SourceErrorKind::Unreachable, "busy");
        let mut retries = Retries::new(policy);
        let mut pause = |after| retries.next_pause(&error, after);
        assert_eq!(
            [pause(None), pause(None), pause(None), pause(None)],
            [1, 2, 4, 5].map(|s| Ok(seconds(s)))
        );
        assert_eq!(pause(Some(seconds(3))), Ok(seconds(3)));
        assert!(pause(None).unwrap_err().message.contains("tried 6 times"));
        let mut retries = Retries::new(policy);
        assert!(retries.next_pause(&error, Some(seconds(600))).unwrap_err().message.contains("600 s"));
    }
}
