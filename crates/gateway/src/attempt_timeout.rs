//! Gives up on one attempt of a provider that hangs, so that a retry or a fallback has time left. That the
//! answer did not come is the upstream's fault; the request's own deadline is another wrapper's.

use std::{sync::Arc, time::Duration};

use embeddery_core::{BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry};

use crate::delegate::delegate_embedder;

/// Ends an attempt after some time.
pub struct AttemptTimeout {
    inner: Arc<dyn Embedder>,
    limit: Duration,
}

impl AttemptTimeout {
    /// Around `inner`; an attempt may take `limit`.
    pub fn new(inner: Arc<dyn Embedder>, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl Embedder for AttemptTimeout {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            tokio::time::timeout(self.limit, self.inner.embed(request)).await.unwrap_or_else(|_| {
                let card = self.model();
                Err(EmbedError::new(
                    ErrorKind::Timeout,
                    Fault::Upstream,
                    Retry::Backoff,
                    format!(
                        "'{}' of {} did not answer within {} s",
                        card.name,
                        card.provider,
                        self.limit.as_secs_f64()
                    ),
                ))
            })
        })
    }
}
