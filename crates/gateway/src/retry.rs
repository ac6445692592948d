//! Retries requests that may succeed later: after an exponential backoff with full jitter, so that requests that failed
//! together do not retry together, or after exactly the time that the upstream requested. An error that is the caller's
//! fault is not retried. A retry that would start after the request's deadline is skipped, and the error is returned at
//! once.

use std::{sync::Arc, time::Duration};

use embeddery_core::{
    Backoff, BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry,
};
use tokio::time::Instant;

use crate::delegate::delegate_embedder;

/// Draws a random duration between zero and the given maximum.
pub type Jitter = Arc<dyn Fn(Duration) -> Duration + Send + Sync>;

/// The number of retries and their backoff.
#[derive(Clone)]
pub struct RetryConfig {
    /// Maximum number of retries after the first attempt.
    pub retries: u32,
    /// Upper bound of the first backoff. The bound doubles with each retry.
    pub initial_backoff: Duration,
    /// Maximum of the upper bound.
    pub max_backoff: Duration,
    /// Maximum delay requested by the upstream that is waited for. With a longer delay the error is returned to the
    /// caller.
    pub max_retry_after: Duration,
    /// The source of randomness.
    pub jitter: Jitter,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            retries: 3,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(20),
            max_retry_after: Duration::from_secs(30),
            jitter: Arc::new(|max| max.mul_f64(fastrand::f64())),
        }
    }
}

/// Retries failed requests.
pub struct Retrier {
    inner: Arc<dyn Embedder>,
    config: RetryConfig,
}

impl Retrier {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Embedder>, config: RetryConfig) -> Self {
        Self { inner, config }
    }

    /// The delay before the next attempt; `None` if the error must not be retried.
    fn retry_delay(&self, error: &EmbedError, attempt: u32, deadline: Option<Instant>) -> Option<Duration> {
        // An open breaker rejects all calls until its own retry time. The caller gets the error without delay.
        if attempt >= self.config.retries
            || error.fault == Fault::Caller
            || error.kind == ErrorKind::BreakerOpen
        {
            return None;
        }
        let delay = match error.retry {
            Retry::Never => return None,
            Retry::After(wait) if wait > self.config.max_retry_after => return None,
            Retry::After(wait) => wait,
            Retry::Backoff => {
                let backoff = Backoff::new(self.config.initial_backoff, self.config.max_backoff);
                (self.config.jitter)(backoff.ceiling(attempt))
            }
        };
        let in_time = deadline.is_none_or(|deadline| Instant::now() + delay < deadline);
        in_time.then_some(delay)
    }
}

impl Embedder for Retrier {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let deadline = request.context.deadline.map(Instant::from);
            let mut attempt = 0;
            loop {
                let error = match self.inner.embed(request.clone()).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                let Some(delay) = self.retry_delay(&error, attempt, deadline) else { return Err(error) };
                tracing::debug!(%error, attempt, delay_ms = delay.as_millis() as u64, "request failed; retrying");
                tokio::time::sleep(delay).await;
                attempt += 1;
            }
        })
    }
}
