//! The steps from a document to stored vectors, shared by inline requests and jobs.
//!
//! 1. [`split()`] divides a text into chunks.
//! 2. [`Ingest::look_up`] finds the chunks that have a vector in the collection.
//! 3. [`embed_billed`] embeds texts on a user's account.
//! 4. [`Ingest::write`] reserves the vector quota, embeds the chunks without a vector and stores the documents.
//!
//! The callers differ in what they do around these steps. An inline request embeds all its texts or fails; a job
//! batches the texts of several documents and isolates the documents that fail.

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
pub use split::{ChunkSpan, split, to_chunks};
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
