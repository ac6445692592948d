//! Ends a request at its deadline, because the caller has stopped waiting. The inner future is dropped, which cancels
//! the work that has not started.

use std::sync::Arc;

use embeddery_core::{BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings};

use crate::delegate::delegate_embedder;

/// Fails a request at its deadline.
pub struct Deadline(pub Arc<dyn Embedder>);

impl Embedder for Deadline {
    delegate_embedder!(0);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        let Some(deadline) = request.context.deadline else { return self.0.embed(request) };
        Box::pin(async move {
            tokio::time::timeout_at(deadline.into(), self.0.embed(request)).await.unwrap_or_else(|_| {
                Err(EmbedError::timeout(format!(
                    "'{}' did not respond before the deadline; send fewer or shorter inputs, or raise EMBEDDINGS_REQUEST_TIMEOUT",
                    self.model().name
                )))
            })
        })
    }
}
