//! Arguments and results of a store. Metadata is a JSON object; filters see its top-level fields only.

use embeddery_core::{SpaceId, vector_defect};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Filter, Fingerprint, StoreError};

/// Metadata of a collection or a document.
pub type Metadata = Map<String, Value>;

/// A collection of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollectionRef<'a> {
    /// The tenant that owns the collection.
    pub tenant: &'a str,
    /// Name of the collection.
    pub collection: &'a str,
}

/// The model that makes the vectors of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelBinding {
    /// Provider of the model.
    pub provider: String,
    /// Name of the model at the provider.
    pub model: String,
    /// Space of the vectors. Only vectors of one space may be compared.
    pub space: SpaceId,
    /// Dimensions of a vector.
    pub dim: usize,
    /// Whether `dim` was requested and differs from the model's own dimensions.
    pub custom_dimensions: bool,
}

/// A collection to create.
#[derive(Clone, Debug)]
pub struct NewCollection {
    /// The model that makes its vectors.
    pub binding: ModelBinding,
    /// Metadata that the tenant gave it.
    pub metadata: Metadata,
    /// Submission that creates the collection. A submission older than the last deletion of the collection is
    /// refused with [`StoreErrorKind::NotFound`](crate::StoreErrorKind::NotFound). `None` is never refused.
    pub submission: Option<Uuid>,
}

/// A collection that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Name of the collection.
    pub name: String,
    /// The model of the active generation, which searches use.
    pub binding: ModelBinding,
    /// Metadata that the tenant gave it.
    pub metadata: Metadata,
    /// The unfinished migration to another model.
    pub migration: Option<Migration>,
}

/// An unfinished migration to another model. Its vectors form a second generation that is not searched yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Id of the generation that is being built.
    pub generation: i64,
    /// The model that makes its vectors.
    pub binding: ModelBinding,
}

/// Size of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of documents.
    pub documents: u64,
    /// Number of vectors in the active generation.
    pub vectors: u64,
}

/// A collection and its size.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The collection.
    pub collection: Collection,
    /// Its size.
    pub counts: Counts,
    /// Number of vectors that the unfinished migration has stored.
    pub migrated: u64,
}

/// A document to store. It replaces the document of the same id.
#[derive(Clone, Debug)]
pub struct Document {
    /// Id, unique in the collection.
    pub id: String,
    /// Metadata that filters can test.
    pub metadata: Metadata,
    /// Chunks, in the order of the text.
    pub chunks: Vec<DocumentChunk>,
    /// Submission that the document belongs to: a UUID of version 7, so that a later submission has a higher id.
    /// A document of a later submission is not replaced by an earlier one. `None` replaces any version and counts
    /// as submitted at the time of the write.
    pub submission: Option<Uuid>,
}

/// A chunk of a document to store.
#[derive(Clone, Debug)]
pub struct DocumentChunk {
    /// Text of the chunk.
    pub text: String,
    /// Position in the document.
    pub span: TextSpan,
    /// Headings above the chunk, outermost first.
    pub headings: Vec<String>,
    /// Vector of the text. `None` if the store holds it from an earlier version of the document, see
    /// [`existing_chunks`](crate::VectorStore::existing_chunks).
    pub vector: Option<Vec<f32>>,
}

/// Position of a chunk in its document: half-open ranges in bytes and in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextSpan {
    /// First byte, and the byte after the last.
    pub bytes: (u64, u64),
    /// First character, and the character after the last.
    pub characters: (u64, u64),
}

/// Result of [`upsert`](crate::VectorStore::upsert): numbers of vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpsertResult {
    /// Vectors that were added.
    pub added: u64,
    /// Vectors that were stored before and stay.
    pub kept: u64,
    /// Vectors that were removed, because the new version of the document does not have their chunks.
    pub removed: u64,
    /// Documents that were not written, because a later submission wrote or deleted them: the id of the document
    /// and of that submission.
    pub superseded: Vec<(String, Uuid)>,
}

/// The documents to delete.
#[derive(Clone, Copy, Debug)]
pub enum DeleteTarget<'a> {
    /// Documents with these ids.
    Ids(&'a [String]),
    /// Documents that match the filter.
    Where(&'a Filter),
    /// All documents of the collection.
    All,
}

/// A request for one page of a list that is ordered by document id.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Last id of the previous page; `None` for the first page.
    pub after: Option<&'a str>,
    /// Maximum number of documents.
    pub limit: usize,
}

/// A document in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentView {
    /// Id of the document.
    pub id: String,
    /// Metadata that filters can test.
    pub metadata: Metadata,
    /// Number of chunks.
    pub chunks: u64,
}

/// A stored document with its chunks and vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDocument {
    /// Id of the document.
    pub id: String,
    /// Metadata that filters can test.
    pub metadata: Metadata,
    /// Chunks, in the order of the text.
    pub chunks: Vec<StoredChunk>,
}

/// A chunk of a stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredChunk {
    /// Id of the vector. It is computed from tenant, collection, document, space and text, so it is the same whenever
    /// the same document is stored.
    pub id: Uuid,
    /// Text of the chunk.
    pub text: String,
    /// Position in the document.
    pub span: TextSpan,
    /// Headings above the chunk, outermost first.
    pub headings: Vec<String>,
    /// Vector of the active generation.
    pub vector: Vec<f32>,
}

/// A search.
#[derive(Clone, Debug)]
pub struct Query {
    /// How chunks are ranked.
    pub mode: SearchMode,
    /// Maximum number of results.
    pub top_k: usize,
    /// Condition on the documents; `None` searches all.
    pub filter: Option<Filter>,
    /// Whether the results carry the texts of their chunks.
    pub with_text: bool,
}

/// How chunks are ranked.
#[derive(Clone, Debug)]
pub enum SearchMode {
    /// By cosine similarity to a vector.
    Vector(Vec<f32>),
    /// By the words of a text, with BM25 (Robertson and Zaragoza, 2009; k1 = 1.2, b = 0.75). Words are the same in all
    /// stores and scripts. `"a phrase"` in double quotes is searched for as a phrase, and `word*` as the start of a word.
    Text(String),
    /// By both; the two rankings are fused by reciprocal rank fusion.
    Hybrid(Vec<f32>, String),
}

impl SearchMode {
    /// Returns what [`Hit::score`] is in this mode.
    pub fn score_kind(&self) -> ScoreKind {
        match self {
            Self::Vector(_) => ScoreKind::Cosine,
            Self::Text(_) => ScoreKind::Bm25,
            Self::Hybrid(..) => ScoreKind::ReciprocalRankFusion,
        }
    }
}

/// What a score is. Higher is always better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    /// Cosine similarity, from -1 to 1. It can be compared between queries.
    Cosine,
    /// BM25, above 0 and without an upper limit. It can be compared within one result only.
    Bm25,
    /// Sum of `1 / (60 + rank)` over the two rankings, above 0 and at most `2 / 61`. It depends on ranks only.
    ReciprocalRankFusion,
}

/// A chunk that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Id of the vector. It is computed from tenant, collection, document, space and text, so it is the same whenever
    /// the same document is stored.
    pub id: Uuid,
    /// Id of the document.
    pub document: String,
    /// Score of the kind [`SearchMode::score_kind`]. Higher is better.
    pub score: f32,
    /// Cosine similarity to the query's vector. `None` if the query has no vector.
    pub cosine: Option<f32>,
    /// Rank among the chunks with words of the query, from 1. `None` if the chunk was not found by its words.
    pub text_rank: Option<u32>,
    /// BM25 score of the words. `None` if the chunk was not found by its words.
    pub text_score: Option<f32>,
    /// Text of the chunk, if [`Query::with_text`] is set.
    pub text: Option<String>,
    /// Position in the document.
    pub span: TextSpan,
    /// Headings above the chunk, outermost first.
    pub headings: Vec<String>,
    /// Metadata of the document.
    pub metadata: Metadata,
}

/// A chunk that has no vector yet in the generation that a migration builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingVector {
    /// Key of the chunk in the store.
    pub chunk: i64,
    /// Text to embed.
    pub text: String,
}

/// Numbers of what the deletion of a tenant removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletionReceipt {
    /// Collections.
    pub collections: u64,
    /// Documents.
    pub documents: u64,
    /// Vectors, including those of unfinished migrations.
    pub vectors: u64,
}

/// A backup of all collections of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// File name in the tenant's `backups` directory.
    pub name: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Key of a chunk within its document. It depends on the texts only, not on the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChunkKey {
    /// Hash of the text.
    pub(crate) fingerprint: Fingerprint,
    /// Number of equal texts before this one in the document.
    pub(crate) occurrence: u32,
}

/// Checks that a vector has `dim` numbers, all of them finite, and a length above zero.
pub(crate) fn check_vector(vector: &[f32], dim: usize) -> Result<(), StoreError> {
    if vector.len() != dim {
        return Err(StoreError::invalid(format!(
            "vector has {} numbers, the collection's have {dim}",
            vector.len()
        )));
    }
    match vector_defect(vector) {
        Some(defect) => Err(StoreError::invalid(format!("vector {defect}"))),
        None => Ok(()),
    }
}
