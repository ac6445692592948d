//! Limits the time of one attempt at a provider, so that a retry or a fallback has time left. The timeout counts as the
//! upstream's fault. The deadline of the request is the `Deadline` wrapper's.

use std::{sync::Arc, time::Duration};

use embeddery_core::{BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry};

use crate::delegate::delegate_embedder;

/// Ends an attempt after a timeout.
pub struct AttemptTimeout {
    inner: Arc<dyn Embedder>,
    timeout: Duration,
}

impl AttemptTimeout {
    /// Wraps `inner`. An attempt ends after `timeout`.
    pub fn new(inner: Arc<dyn Embedder>, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl Embedder for AttemptTimeout {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            tokio::time::timeout(self.timeout, self.inner.embed(request)).await.unwrap_or_else(|_| {
                let model = self.model();
                Err(EmbedError::new(
                    ErrorKind::Timeout,
                    Fault::Upstream,
                    Retry::Backoff,
                    format!(
                        "'{}' of {} did not respond within {} s",
                        model.name,
                        model.provider,
                        self.timeout.as_secs_f64()
                    ),
                ))
            })
        })
    }
}
