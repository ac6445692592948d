//! What is tried again, how often and how long after. Only failures that may pass by themselves are; a
//! transfer that moves forward gets its patience back, so a large file survives a bad line.

use std::time::Duration;

use embeddery_core::{Backoff, SourceError, SourceErrorKind};

/// How patient downloads are.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Failures in a row that are forgiven.
    pub retries: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause. A hub that asks for a longer one (`Retry-After`) ends the download with its wish.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 5, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(60) }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may pass. `after` is the pause that the hub asked for.
    Passing { error: SourceError, after: Option<Duration> },
    /// Trying again would not help.
    Final(SourceError),
}

/// The retries of one piece of work.
pub(crate) struct Retries {
    policy: RetryPolicy,
    failures: u32,
}

impl Retries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Work moved forward: earlier failures are forgotten.
    pub(crate) fn forget(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next attempt; `Err` when there shall be none.
    pub(crate) async fn wait_after(&mut self, failure: Failure) -> Result<(), SourceError> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, after } => (error, after),
        };
        let pause = self.next_pause(&error, after)?;
        tracing::warn!(%error, pause_ms = pause.as_millis(), "download failed, trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next_pause(&mut self, error: &SourceError, after: Option<Duration>) -> Result<Duration, SourceError> {
        if let Some(wish) = after.filter(|wish| *wish > self.policy.longest_pause) {
            let message = format!("{error}; it asks to come back in {} s", wish.as_secs());
            return Err(SourceError::new(SourceErrorKind::Unreachable, message));
        }
        if self.failures >= self.policy.retries {
            let message = format!("{error} (tried {} times)", self.failures + 1);
            return Err(SourceError::new(error.kind, message));
        }
        let doubled = Backoff::new(self.policy.first_pause, self.policy.longest_pause).ceiling(self.failures);
        self.failures += 1;
        Ok(after.unwrap_or(doubled).min(self.policy.longest_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_the_hub_s_wish_goes_first() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy { retries: 5, first_pause: seconds(1), longest_pause: seconds(5) };
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
