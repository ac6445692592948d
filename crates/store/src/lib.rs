#![doc = include_str!("../README.md")]

mod check;
mod chroma;
mod error;
mod filter;
mod fusion;
mod ids;
mod json_numbers;
mod matrix;
mod number;
mod postgres;
mod sqlite;
mod store;
mod tombstone_retention;
mod types;
mod words;

pub use check::{CheckedDocument, FieldError, check_id, check_metadata, check_text};
pub use chroma::{ChromaClient, ChromaCollection, ChromaRecord};
pub use error::{StoreError, StoreErrorKind};
pub use filter::{Comparison, Filter, FilterError, Scalar};
pub use ids::check_name;
use ids::{Fingerprint, fingerprints, vector_id};
pub use json_numbers::{number_tokens, unrepresentable_number};
pub use number::Number;
pub use postgres::{
    PostgresConfig, PostgresMetrics, PostgresStore,
    connection::Connections,
    migrations::{MigrationCode, MigrationStep, Migrations},
};
pub use sqlite::{SqliteConfig, SqliteStore};
pub use store::VectorStore;
pub use types::{
    Backup, Collection, CollectionRef, Counts, DeleteTarget, DeletionReceipt, Document, DocumentChunk,
    DocumentView, Hit, Metadata, Migration, MissingVector, ModelBinding, NewCollection, PageRequest, Query,
    ScoreKind, SearchMode, Stats, StoredChunk, StoredDocument, TextSpan, UpsertResult,
};
use types::{ChunkKey, check_vector};
