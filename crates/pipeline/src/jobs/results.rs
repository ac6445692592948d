//! Results of the stages, and the outcome of a document.

use embeddery_core::SpaceId;
pub use embeddery_ingest::ChunkSpan;

use super::DocumentState;
use crate::{Reason, Stage};

/// A document's vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// The space of the vectors: which others they may be compared with.
    pub space: SpaceId,
    /// Dimensions of each vector.
    pub dim: usize,
    /// The row in `data` of each chunk; `None` when the collection has its vector already.
    pub rows: Vec<Option<u32>>,
    /// The rows, end to end.
    pub data: Vec<f32>,
}

/// How a document ended.
#[derive(Clone, Debug, PartialEq)]
pub enum DocumentOutcome {
    /// It is stored, and searches find it.
    Stored {
        /// How many chunks it has.
        chunks: u64,
    },
    /// A later submission of the same document was stored before it, or its job has an equal document.
    Superseded(Reason),
    /// It could not be stored.
    Failed {
        /// The stage at which it failed.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// When the task that failed entered the queue: [`Task::enqueued_at_ms`](crate::Task::enqueued_at_ms).
        enqueued_at_ms: u64,
    },
}

/// What the job store did with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It wrote the result.
    Written,
    /// It ignored the result, because the document is in this state already. The caller settles by the state.
    Already(DocumentState),
    /// The job is deleted.
    JobDeleted,
}
