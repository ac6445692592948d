//! What every wrapper says of itself is what the embedder inside it says.

/// The parts of [`Embedder`](embeddery_core::Embedder) that a wrapper passes on.
macro_rules! passed_on {
    ($inner:tt) => {
        fn model(&self) -> &std::sync::Arc<embeddery_core::ModelCard> {
            self.$inner.model()
        }

        fn limits(&self) -> &embeddery_core::Limits {
            self.$inner.limits()
        }

        fn count(&self, text: &str) -> embeddery_core::TokenCount {
            self.$inner.count(text)
        }

        fn identity(&self) -> Option<embeddery_core::Identity> {
            self.$inner.identity()
        }

        fn warm_up(&self) -> embeddery_core::BoxFuture<'_, Result<(), embeddery_core::EmbedError>> {
            self.$inner.warm_up()
        }
    };
}

pub(crate) use passed_on;
