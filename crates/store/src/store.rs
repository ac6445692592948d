//! [`VectorStore`], the trait of all stores. Every method is one atomic step: when it returns, all readers see its
//! effect.

use embeddery_core::{BoxFuture, SpaceId};

use crate::{
    Backup, CheckedDocument, Collection, CollectionRef, DeleteTarget, DeletionReceipt, DocumentView, Hit,
    MissingVector, ModelBinding, NewCollection, PageRequest, Query, Stats, StoreError, StoredDocument,
    UpsertResult,
};

/// The future that an operation of a store returns.
pub type Operation<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Collections of vectors and their search.
pub trait VectorStore: Send + Sync {
    /// Creates a collection. Fails with [`StoreErrorKind::Exists`](crate::StoreErrorKind::Exists) if the name is taken,
    /// even by an equal collection.
    fn create<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        new: NewCollection,
    ) -> Operation<'a, Collection>;

    /// Lists the collections of a tenant, ordered by name.
    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>>;

    /// Returns a collection.
    fn get<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Collection>;

    /// Returns a collection and its size.
    fn stats<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Stats>;

    /// Deletes a collection with its documents and vectors.
    fn drop_collection<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, ()>;

    /// Returns, for each chunk of each document, whether its vector is stored and need not be made again.
    fn existing_chunks<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        documents: &'a [CheckedDocument],
    ) -> Operation<'a, Vec<Vec<bool>>>;

    /// Stores documents, all or none. A document replaces the one of the same id, unless that one is of a later
    /// submission. `space` is the space of the vectors and must be that of the collection; it is `None` if no vector
    /// is sent.
    fn upsert<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        space: Option<SpaceId>,
        documents: Vec<CheckedDocument>,
    ) -> Operation<'a, UpsertResult>;

    /// Lists a page of documents, ordered by id.
    fn documents<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<DocumentView>>;

    /// Returns a document with its chunks and vectors.
    fn document<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        id: &'a str,
    ) -> Operation<'a, StoredDocument>;

    /// Returns a page of documents with their chunks and vectors, ordered by id, for an export.
    fn export<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<StoredDocument>>;

    /// Deletes documents and returns how many were deleted.
    fn delete<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        target: DeleteTarget<'a>,
    ) -> Operation<'a, u64>;

    /// Returns the best hits, best first.
    fn search<'a>(&'a self, collection_ref: CollectionRef<'a>, query: Query) -> Operation<'a, Vec<Hit>>;

    /// Begins a migration to another model and returns the generation that it builds. An unfinished migration to the
    /// same binding is continued; one to another binding is replaced.
    fn begin_migration<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        to: ModelBinding,
    ) -> Operation<'a, i64>;

    /// Returns at most `limit` chunks that have no vector in this generation.
    fn missing_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        limit: usize,
    ) -> Operation<'a, Vec<MissingVector>>;

    /// Stores vectors of a generation. Each comes with the key of its chunk; a chunk that was deleted since is skipped.
    fn insert_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()>;

    /// Makes this generation the active one, which searches use, and deletes the previous one. Returns false and
    /// changes nothing if a chunk has no vector in this generation.
    fn activate_generation<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
    ) -> Operation<'a, bool>;

    /// Writes all collections of a tenant into one consistent backup file.
    fn backup<'a>(&'a self, tenant: &'a str) -> Operation<'a, Backup>;

    /// Deletes a tenant with all collections.
    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, DeletionReceipt>;

    /// Checks that the store can be used.
    fn health(&self) -> Operation<'_, ()>;
}
