#![doc = include_str!("../README.md")]

mod chroma;
mod error;
mod filter;
mod fusion;
mod ids;
mod matrix;
mod postgres;
mod sqlite;
mod store;
mod tombstone_retention;
mod types;
mod words;

pub use chroma::{ChromaClient, ChromaCollection, ChromaRecord};
pub use error::{StoreError, StoreErrorKind};
pub use filter::{Comparison, Filter, FilterError, Scalar};
pub use ids::check_name;
use ids::{Fingerprint, fingerprints, vector_id};
pub use postgres::{
    PostgresConfig, PostgresMetrics, PostgresStore, connection::Connections, migrations::Migrations,
};
pub use sqlite::{SqliteConfig, SqliteStore};
pub use store::VectorStore;
pub use types::{
    Backup, Collection, CollectionRef, Counts, DeleteTarget, DeletionReceipt, Document, DocumentChunk,
    DocumentView, Hit, Migration, MissingVector, ModelBinding, NewCollection, PageRequest, Query, ScoreKind,
    SearchMode, Stats, StoredChunk, StoredDocument, TextSpan, UpsertResult,
};
use types::{ChunkKey, check_vector};
