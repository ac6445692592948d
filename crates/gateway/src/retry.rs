//! Tries again what may succeed later: after a pause drawn at random (full jitter, so that callers who failed
//! together do not come back together), or after exactly what the upstream asked for. Never what is the
//! caller's mistake, never past the deadline: who cannot wait that long is told at once.

use std::{sync::Arc, time::Duration};

use embeddery_core::{Backoff, BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry};
use tokio::time::Instant;

use crate::wrapper::passed_on;

/// Draws a pause between nothing and the given one.
pub type Jitter = Arc<dyn Fn(Duration) -> Duration + Send + Sync>;

/// How often, and with which pauses.
#[derive(Clone)]
pub struct RetryConfig {
    /// Attempts after the first.
    pub retries: u32,
    /// The first pause is drawn up to this; each later one up to twice the one before.
    pub base: Duration,
    /// No pause is drawn above this.
    pub longest: Duration,
    /// A pause that the upstream asks for is waited here up to this; a longer one is the caller's to wait.
    pub longest_asked: Duration,
    /// What draws.
    pub jitter: Jitter,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            retries: 3,
            base: Duration::from_millis(500),
            longest: Duration::from_secs(20),
            longest_asked: Duration::from_secs(30),
            jitter: Arc::new(|most| most.mul_f64(fastrand::f64())),
        }
    }
}

/// Tries again.
pub struct Retrying {
    inner: Arc<dyn Embedder>,
    config: RetryConfig,
}

impl Retrying {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Embedder>, config: RetryConfig) -> Self {
        Self { inner, config }
    }

    /// The pause before the next attempt; `None` when there shall be none.
    fn pause(&self, error: &EmbedError, attempt: u32, deadline: Option<Instant>) -> Option<Duration> {
        // An open breaker says by itself when to come back; waiting here would hold the caller for nothing.
        if attempt >= self.config.retries
            || error.fault == Fault::Caller
            || error.kind == ErrorKind::BreakerOpen
        {
            return None;
        }
        let pause = match error.retry {
            Retry::Never => return None,
            Retry::After(wait) if wait > self.config.longest_asked => return None,
            Retry::After(wait) => wait,
            Retry::Backoff => {
                let backoff = Backoff::new(self.config.base, self.config.longest);
                (self.config.jitter)(backoff.ceiling(attempt))
            }
        };
        let in_time = deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
        in_time.then_some(pause)
    }
}

impl Embedder for Retrying {
    passed_on!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let deadline = request.context.deadline.map(Instant::from);
            let mut attempt = 0;
            loop {
                let error = match self.inner.embed(request.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                let Some(pause) = self.pause(&error, attempt, deadline) else { return Err(error) };
                tracing::debug!(%error, attempt, pause_ms = pause.as_millis() as u64, "trying again");
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
        })
    }
}
