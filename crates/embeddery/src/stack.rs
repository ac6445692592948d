//! The stack: which wrappers stand around a provider's adapter, outermost first, and why each stands there.
//! This is the one place where adapters and wrappers meet.

use std::sync::Arc;

use embeddery_core::Embedder;
use embeddery_gateway::{Deadline, Dimensions, Integrity, Measured, Metrics};

/// Wraps a provider's adapter.
pub(crate) fn stack(adapter: Arc<dyn Embedder>, metrics: &Metrics) -> Arc<dyn Embedder> {
    // Innermost: nothing may see an answer that cannot be right.
    let embedder: Arc<dyn Embedder> = Arc::new(Integrity(adapter));
    // Around the whole vectors that were proven, so that a cut is made from the model's own answer.
    let embedder: Arc<dyn Embedder> = Arc::new(Dimensions(embedder));
    // Around all work, so that nothing computes for a caller who has stopped waiting.
    let embedder: Arc<dyn Embedder> = Arc::new(Deadline(embedder));
    // Outermost: every request is counted once, however it ends, a deadline that passed included.
    Arc::new(Measured::new(embedder, metrics))
}
