//! The contract. Every method is one atomic step: what it returns is what all readers see from then on.

use embeddery_core::{BoxFuture, SpaceId};

use crate::{
    Backup, Collection, CollectionRef, DeleteTarget, DeletionReceipt, Document, DocumentView, Hit,
    MissingVector, ModelBinding, NewCollection, Page, Query, Stats, StoreError, StoredDocument, UpsertResult,
};

/// The future of an operation.
pub type Operation<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Collections of vectors and their search.
pub trait VectorStore: Send + Sync {
    /// Makes a collection; one of the same name is an error, even an equal one.
    fn create<'a>(&'a self, place: CollectionRef<'a>, new: NewCollection) -> Operation<'a, Collection>;

    /// A tenant's collections, by name.
    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>>;

    /// A collection.
    fn get<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, Collection>;

    /// A collection and how much it holds.
    fn stats<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, Stats>;

    /// Removes a collection with all in it.
    fn drop_collection<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, ()>;

    /// For each chunk of these documents, whether its vector is stored and need not be made again.
    fn existing_chunks<'a>(
        &'a self,
        place: CollectionRef<'a>,
        documents: &'a [Document],
    ) -> Operation<'a, Vec<Vec<bool>>>;

    /// Stores documents, all or none, replacing those of the same ids unless they are of a later submission. Their
    /// vectors must be of the collection's space; `None` says that no vector is sent.
    fn upsert<'a>(
        &'a self,
        place: CollectionRef<'a>,
        space: Option<SpaceId>,
        documents: Vec<Document>,
    ) -> Operation<'a, UpsertResult>;

    /// A page of documents, by id.
    fn documents<'a>(&'a self, place: CollectionRef<'a>, page: Page<'a>) -> Operation<'a, Vec<DocumentView>>;

    /// A document with all there is of it.
    fn document<'a>(&'a self, place: CollectionRef<'a>, id: &'a str) -> Operation<'a, StoredDocument>;

    /// A page of whole documents, by id: what an export writes.
    fn export<'a>(&'a self, place: CollectionRef<'a>, page: Page<'a>) -> Operation<'a, Vec<StoredDocument>>;

    /// Deletes documents and says how many there were.
    fn delete<'a>(&'a self, place: CollectionRef<'a>, removal: DeleteTarget<'a>) -> Operation<'a, u64>;

    /// The best results, best first.
    fn search<'a>(&'a self, place: CollectionRef<'a>, query: Query) -> Operation<'a, Vec<Hit>>;

    /// Begins a move to another model and returns its generation; going on with one that was begun for the same
    /// binding is not an error, one for another binding is replaced.
    fn begin_migration<'a>(&'a self, place: CollectionRef<'a>, to: ModelBinding) -> Operation<'a, i64>;

    /// Chunks that have no vector of this generation, at most `limit`.
    fn missing_vectors<'a>(
        &'a self,
        place: CollectionRef<'a>,
        generation: i64,
        limit: usize,
    ) -> Operation<'a, Vec<MissingVector>>;

    /// Stores vectors of a generation. Chunks that are gone meanwhile are skipped.
    fn insert_vectors<'a>(
        &'a self,
        place: CollectionRef<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()>;

    /// Searches this generation from now on and drops the one before. False when chunks are pending.
    fn activate_generation<'a>(&'a self, place: CollectionRef<'a>, generation: i64) -> Operation<'a, bool>;

    /// Copies all of a tenant's collections into one consistent file.
    fn backup<'a>(&'a self, tenant: &'a str) -> Operation<'a, Backup>;

    /// Removes a tenant with all collections.
    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, DeletionReceipt>;

    /// Whether the store can be used.
    fn health(&self) -> Operation<'_, ()>;
}
