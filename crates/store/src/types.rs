//! What goes into a store and comes out of it. Metadata are JSON objects; the store looks at their top level only.

use embeddery_core::SpaceId;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Filter, Fingerprint, StoreError};

/// Metadata of a collection or a document.
pub type Metadata = Map<String, Value>;

/// A collection of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollectionRef<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Its name.
    pub collection: &'a str,
}

/// Which model makes a collection's vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelBinding {
    /// Who serves the model.
    pub provider: String,
    /// The provider's name for it.
    pub model: String,
    /// Which vectors may be compared.
    pub space: SpaceId,
    /// Length of a vector.
    pub dim: usize,
    /// Whether that length was asked for, because it is not the model's own.
    pub custom_dimensions: bool,
}

/// A collection to be made.
#[derive(Clone, Debug)]
pub struct NewCollection {
    /// Which model makes its vectors.
    pub binding: ModelBinding,
    /// What its owner says of it.
    pub metadata: Metadata,
    /// Which submission it is made for, if it is: one that a deletion of the collection came after makes none.
    pub submission: Option<Uuid>,
}

/// A collection that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// Which model makes its vectors.
    pub binding: ModelBinding,
    /// What its owner says of it.
    pub metadata: Metadata,
    /// The move to another model that has begun and not ended.
    pub migration: Option<Migration>,
}

/// A move to another model: vectors of a second generation, not yet searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The generation's number.
    pub generation: i64,
    /// The model it is made with.
    pub binding: ModelBinding,
}

/// How much a collection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Vectors that are searched.
    pub vectors: u64,
}

/// A collection and how much it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The collection.
    pub collection: Collection,
    /// Its contents.
    pub counts: Counts,
    /// Vectors the unfinished migration has made.
    pub migrated: u64,
}

/// A document to be stored, replacing the one of the same id.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its id, unique in the collection.
    pub id: String,
    /// What searches can filter by.
    pub metadata: Metadata,
    /// Its parts, in order.
    pub chunks: Vec<Chunk>,
    /// Which submission it is of: a UUID of version 7, so that a later one is higher. The version of a later one
    /// stays. `None` is written whatever is there, and is of now.
    pub submission: Option<Uuid>,
}

/// A part of a document.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The part itself.
    pub text: String,
    /// Where it stands in the document.
    pub span: Span,
    /// The headings above it, outermost first.
    pub headings: Vec<String>,
    /// Its vector; `None` when the store has it from an earlier version of the document.
    pub vector: Option<Vec<f32>>,
}

/// Where a part stands in its document: half-open ranges in bytes and in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte, and the byte after the last.
    pub bytes: (u64, u64),
    /// First character, and the character after the last.
    pub characters: (u64, u64),
}

/// What a write did, in vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpsertResult {
    /// New ones.
    pub added: u64,
    /// Those that were there already.
    pub kept: u64,
    /// Those of chunks that are no more.
    pub removed: u64,
    /// Documents that were left as they are, because they are of a later submission, and that one.
    pub overtaken: Vec<(String, Uuid)>,
}

/// What to delete.
#[derive(Clone, Copy, Debug)]
pub enum DeleteTarget<'a> {
    /// These documents.
    Ids(&'a [String]),
    /// The documents this fits.
    Where(&'a Filter),
}

/// A page of a list: what comes after a document's id, at most so many.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The last id of the page before.
    pub after: Option<&'a str>,
    /// How many.
    pub limit: usize,
}

/// A document in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentView {
    /// Its id.
    pub id: String,
    /// What searches can filter by.
    pub metadata: Metadata,
    /// How many chunks it has.
    pub chunks: u64,
}

/// A document with all there is of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDocument {
    /// Its id.
    pub id: String,
    /// What searches can filter by.
    pub metadata: Metadata,
    /// Its parts, in order.
    pub chunks: Vec<StoredChunk>,
}

/// A part of a stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredChunk {
    /// The vector's id.
    pub id: Uuid,
    /// The part itself.
    pub text: String,
    /// Where it stands in the document.
    pub span: Span,
    /// The headings above it, outermost first.
    pub headings: Vec<String>,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// What to search.
#[derive(Clone, Debug)]
pub struct Query {
    /// How.
    pub mode: Mode,
    /// How many results.
    pub top_k: usize,
    /// Which documents count.
    pub filter: Option<Filter>,
    /// Whether results carry their texts.
    pub with_text: bool,
}

/// How to search.
#[derive(Clone, Debug)]
pub enum Mode {
    /// The nearest vectors, by cosine.
    Vector(Vec<f32>),
    /// The best matching words.
    Text(String),
    /// Both, their ranks fused.
    Hybrid(Vec<f32>, String),
}

/// A found chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The vector's id.
    pub id: Uuid,
    /// The document's id.
    pub document: String,
    /// Higher is nearer: the cosine, the words' rank score, or the fused score.
    pub score: f32,
    /// The chunk's text, when asked for.
    pub text: Option<String>,
    /// Where it stands in the document.
    pub span: Span,
    /// The headings above it, outermost first.
    pub headings: Vec<String>,
    /// The document's metadata.
    pub metadata: Metadata,
}

/// A chunk that a migration has not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingVector {
    /// The store's own key of the chunk.
    pub chunk: i64,
    /// What to embed.
    pub text: String,
}

/// What is gone after a user was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletionReceipt {
    /// Collections.
    pub collections: u64,
    /// Documents.
    pub documents: u64,
    /// Vectors, those of unfinished migrations included.
    pub vectors: u64,
}

/// A copy of all collections of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The file's name in the user's directory of backups.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A chunk's key within its document, independent of the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// The text's hash.
    pub fingerprint: Fingerprint,
    /// Which of the document's equal texts it is.
    pub occurrence: u32,
}

/// A vector that can be stored and compared.
pub(crate) fn check_vector(vector: &[f32], dim: usize) -> Result<(), StoreError> {
    if vector.len() != dim {
        return Err(StoreError::invalid(format!(
            "vector has {} numbers, the collection's have {dim}",
            vector.len()
        )));
    }
    if !vector.iter().all(|x| x.is_finite()) {
        return Err(StoreError::invalid("vector holds a number that is not finite"));
    }
    if vector.iter().all(|x| *x == 0.0) {
        return Err(StoreError::invalid("vector is all zeros, which has no direction to compare"));
    }
    Ok(())
}
