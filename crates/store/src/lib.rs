//! Collections of vectors and their search. [`VectorStore`] is the contract; [`SqliteStore`] keeps it with one
//! SQLite database per user and an exact search, [`PostgresStore`] in PostgreSQL with pgvector. The same suite of
//! tests, `tests/conformance`, examines both.
//!
//! The store knows nothing of models and of HTTP: vectors come in, ids and scores go out. What it guarantees:
//! a document is seen as it was before a write or as it is after it, never in between; what has been
//! acknowledged survives the death of the process; vectors of two spaces never meet in one answer.

mod chroma;
mod error;
mod filter;
mod fusion;
mod ids;
mod matrix;
mod postgres;
mod query_terms;
mod sqlite;
mod store;
mod tombstone;
mod types;

pub use chroma::{Chroma, ChromaCollection, ChromaRecord};
pub use error::{StoreError, StoreErrorKind};
pub use filter::{Filter, FilterError, MAX_DEPTH, Order, Scalar};
pub use ids::{Fingerprint, check_name, fingerprints, vector_id};
pub use postgres::{
    PostgresConfig, PostgresMetrics, PostgresStore, connection::Connections, migrations::Migrations,
};
pub use sqlite::{SqliteConfig, SqliteStore, user_directory};
pub use store::VectorStore;
use types::check_vector;
pub use types::{
    Backup, Chunk, Collection, CollectionRef, Counts, DeleteTarget, DeletionReceipt, Document, DocumentView,
    Hit, Migration, MissingVector, Mode, ModelBinding, NewCollection, Page, Query, Span, Stats, StoredChunk,
    StoredDocument, UpsertResult,
};
