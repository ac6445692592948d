//! A macro for wrappers: it delegates all methods of `Embedder` except `embed` to the wrapped embedder.

/// Implements the methods of [`Embedder`](embeddery_core::Embedder) that a wrapper does not change. `$inner` is the field
/// with the wrapped embedder.
macro_rules! delegate_embedder {
    ($inner:tt) => {
        fn model(&self) -> &std::sync::Arc<embeddery_core::ModelInfo> {
            self.$inner.model()
        }

        fn limits(&self) -> &embeddery_core::CallLimits {
            self.$inner.limits()
        }

        fn count_tokens(&self, text: &str) -> embeddery_core::TokenCount {
            self.$inner.count_tokens(text)
        }

        fn server(&self) -> embeddery_core::UpstreamServer {
            self.$inner.server()
        }

        fn token_counter(
            &self,
        ) -> embeddery_core::BoxFuture<
            '_,
            Result<std::sync::Arc<dyn embeddery_core::TokenCounter>, embeddery_core::EmbedError>,
        > {
            self.$inner.token_counter()
        }

        fn identity(&self) -> Option<embeddery_core::EmbeddingIdentity> {
            self.$inner.identity()
        }

        fn warm_up(&self) -> embeddery_core::BoxFuture<'_, Result<(), embeddery_core::EmbedError>> {
            self.$inner.warm_up()
        }
    };
}

pub(crate) use delegate_embedder;
