//! Who serves a model ([`Router`]), and the wrappers that make any [`Embedder`](embeddery_core::Embedder)
//! good. A wrapper is an embedder around another one; the binary's `stack.rs` says in which order they stand.
//! Nothing here knows HTTP, and nothing here knows what a provider does.

mod deadline;
mod dimensions;
mod integrity;
mod metrics;
mod names;
mod router;

pub use deadline::Deadline;
pub use dimensions::Dimensions;
pub use integrity::Integrity;
pub use metrics::{Measured, Metrics};
pub use router::{ConfiguredModel, ListedModel, Resolved, Router, RouterConfig, Selector, Wrap};
