//! The distributed store: PostgreSQL with pgvector. One database for all tenants; row-level security keeps them
//! apart even where a query forgot to. Vectors are kept at unit length in half precision, found by HNSW.
//!
//! - [`connection`] pools connections and begins transactions on behalf of a tenant;
//! - [`schema`] is what stands in the database, version by version;
//! - [`collections`], [`mod@write`], [`read`], [`search`], [`migrate`] are the operations, each one transaction;
//! - [`filter`] turns a filter into SQL; [`metrics`] is what Prometheus sees.

mod collections;
pub mod connection;
mod filter;
mod metrics;
mod migrate;
pub(crate) mod migrations;
mod read;
mod schema;
mod search;
mod tombstones;
mod write;

use std::time::Duration;

use embeddery_core::SpaceId;
use prometheus_client::registry::Registry;

pub use metrics::PostgresMetrics;

use crate::{
    Backup, Collection, CollectionRef, DeleteTarget, DeletionReceipt, Document, DocumentView, Hit,
    MissingVector, ModelBinding, NewCollection, Page, Query, Stats, StoreError, StoreErrorKind,
    StoredDocument, UpsertResult, VectorStore, store::Operation,
};
use connection::Connections;
use metrics::timed;

/// How the distributed store works.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host/database`; holds a password and is never shown.
    pub url: String,
    /// Connections at most.
    pub connections: usize,
    /// The longest a statement may take, and the longest a request waits for a connection.
    pub timeout: Duration,
}

/// The distributed store.
pub struct PostgresStore(Connections, PostgresMetrics);

impl PostgresStore {
    /// A store over a database, which need not be reachable yet.
    pub fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        Ok(Self(Connections::new(config)?, PostgresMetrics::new(&mut Registry::default())))
    }

    /// The same with its times and counts where they are seen.
    #[must_use]
    pub fn measured(self, metrics: PostgresMetrics) -> Self {
        Self(self.0, metrics)
    }
}

impl VectorStore for PostgresStore {
    fn create<'a>(&'a self, place: CollectionRef<'a>, new: NewCollection) -> Operation<'a, Collection> {
        Box::pin(collections::create(&self.0, place, new))
    }

    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>> {
        Box::pin(collections::list(&self.0, tenant))
    }

    fn get<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, Collection> {
        Box::pin(collections::get(&self.0, place))
    }

    fn stats<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, Stats> {
        Box::pin(collections::stats(&self.0, place))
    }

    fn drop_collection<'a>(&'a self, place: CollectionRef<'a>) -> Operation<'a, ()> {
        Box::pin(collections::drop(&self.0, place))
    }

    fn existing_chunks<'a>(
        &'a self,
        place: CollectionRef<'a>,
        documents: &'a [Document],
    ) -> Operation<'a, Vec<Vec<bool>>> {
        Box::pin(read::stored(&self.0, place, documents))
    }

    fn upsert<'a>(
        &'a self,
        place: CollectionRef<'a>,
        space: Option<SpaceId>,
        documents: Vec<Document>,
    ) -> Operation<'a, UpsertResult> {
        Box::pin(async move {
            let upsert = write::upsert(&self.0, place, space, documents);
            let written = timed(&self.1.upsert, upsert).await?;
            self.1.upserted.inc_by(written.added);
            Ok(written)
        })
    }

    fn documents<'a>(&'a self, place: CollectionRef<'a>, page: Page<'a>) -> Operation<'a, Vec<DocumentView>> {
        Box::pin(read::documents(&self.0, place, page))
    }

    fn document<'a>(&'a self, place: CollectionRef<'a>, id: &'a str) -> Operation<'a, StoredDocument> {
        Box::pin(read::document(&self.0, place, id))
    }

    fn export<'a>(&'a self, place: CollectionRef<'a>, page: Page<'a>) -> Operation<'a, Vec<StoredDocument>> {
        Box::pin(read::export(&self.0, place, page))
    }

    fn delete<'a>(&'a self, place: CollectionRef<'a>, removal: DeleteTarget<'a>) -> Operation<'a, u64> {
        Box::pin(async move {
            let deleted = timed(&self.1.delete, write::delete(&self.0, place, removal)).await?;
            self.1.deleted.inc_by(deleted);
            Ok(deleted)
        })
    }

    fn search<'a>(&'a self, place: CollectionRef<'a>, query: Query) -> Operation<'a, Vec<Hit>> {
        Box::pin(timed(&self.1.query, search::search(&self.0, place, query)))
    }

    fn begin_migration<'a>(&'a self, place: CollectionRef<'a>, to: ModelBinding) -> Operation<'a, i64> {
        Box::pin(migrate::begin(&self.0, place, to))
    }

    fn missing_vectors<'a>(
        &'a self,
        place: CollectionRef<'a>,
        generation: i64,
        limit: usize,
    ) -> Operation<'a, Vec<MissingVector>> {
        Box::pin(migrate::pending(&self.0, place, generation, limit))
    }

    fn insert_vectors<'a>(
        &'a self,
        place: CollectionRef<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()> {
        Box::pin(migrate::fill(&self.0, place, generation, vectors))
    }

    fn activate_generation<'a>(&'a self, place: CollectionRef<'a>, generation: i64) -> Operation<'a, bool> {
        Box::pin(migrate::flip(&self.0, place, generation))
    }

    fn backup<'a>(&'a self, _: &'a str) -> Operation<'a, Backup> {
        Box::pin(async {
            Err(StoreError::new(
                StoreErrorKind::Unsupported,
                "collections are in PostgreSQL; back them up there: pg_dump --schema=embeddery, or continuous archiving",
            ))
        })
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, DeletionReceipt> {
        Box::pin(collections::delete_tenant(&self.0, tenant))
    }

    fn health(&self) -> Operation<'_, ()> {
        Box::pin(async { self.0.client().await.map(|_| ()) })
    }
}
