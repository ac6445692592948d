#![doc = include_str!("../README.md")]

mod embed;
mod lookup;
mod quota;
mod split;
mod write;

use std::sync::Arc;

use embeddery_accounts::Ledger;
use embeddery_gateway::Router;
use embeddery_store::VectorStore;

pub use embed::{
    Account, MAX_TEXTS_PER_CALL, check_space, embed_billed, estimate_input_tokens, model_selector,
    text_request,
};
pub use lookup::Lookup;
pub use quota::VectorQuota;
pub use split::{
    ChunkSpan, ModelReader, SplitTextError, document_truncation, run_stoppable, split, to_chunks,
};
pub use write::{MissingChunk, WriteBatch, WriteError, WriteTarget};

/// The parts of the process that ingest documents. Clones share them.
#[derive(Clone)]
pub struct Ingest {
    /// Opens and calls models.
    pub router: Arc<Router>,
    /// Holds the collections.
    pub store: Arc<dyn VectorStore>,
    /// Holds quotas and usage.
    pub ledger: Arc<Ledger>,
    /// Tracks the vectors that writes of this process have reserved. All writers of a process must share one.
    pub quota: Arc<VectorQuota>,
}
