//! Everything that implements [`Embedder`](embeddery_core::Embedder) and
//! [`Provider`](embeddery_core::Provider): one module per provider. Adapters decide what a failure means;
//! the gateway's wrappers only obey. Today: [`local`], this machine's own engine.

#[cfg(feature = "local")]
pub mod local;
