//! The distributed store: PostgreSQL with pgvector. All tenants share one database; row-level security separates them
//! even if a query lacks the condition on the tenant. Vectors are stored at unit length in half precision and indexed
//! by HNSW.
//!
//! - [`connection`] pools connections and begins transactions on behalf of a tenant;
//! - [`schema`] holds the tables and their migrations;
//! - [`collections`], [`mod@write`], [`read`], [`search`] and [`model_migration`] are the operations, each one transaction;
//! - [`tombstones`] records deletions;
//! - [`words`] is the index of words, and [`word_search`] the search in it;
//! - [`filter`] compiles a filter to SQL, and [`metadata`] is the stored form of metadata;
//! - [`metrics`] are the Prometheus metrics.

mod collections;
pub mod connection;
mod filter;
mod metadata;
mod metrics;
pub(crate) mod migrations;
mod model_migration;
mod read;
mod schema;
mod search;
mod tombstones;
mod word_search;
mod words;
mod write;

use std::time::Duration;

use embeddery_core::SpaceId;
use prometheus_client::registry::Registry;

pub use metrics::PostgresMetrics;

use crate::{
    Backup, CheckedDocument, Collection, CollectionRef, DeleteTarget, DeletionReceipt, DocumentView, Hit,
    MissingVector, ModelBinding, NewCollection, PageRequest, Query, Stats, StoreError, StoreErrorKind,
    StoredDocument, UpsertResult, VectorStore, store::Operation,
};
use connection::Connections;
use metrics::timed;

/// Configuration of the distributed store.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host/database`. It contains a password and is never logged or returned.
    pub url: String,
    /// Maximum number of connections.
    pub connections: usize,
    /// Time limit of a statement, and of the wait for a connection.
    pub timeout: Duration,
}

/// The distributed store.
pub struct PostgresStore {
    connections: Connections,
    metrics: PostgresMetrics,
}

impl PostgresStore {
    /// A store in a database, which need not be reachable yet.
    pub fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        let metrics = PostgresMetrics::new(&mut Registry::default());
        Ok(Self { connections: Connections::new(config)?, metrics })
    }

    /// Records into these metrics instead of unregistered ones.
    #[must_use]
    pub fn with_metrics(self, metrics: PostgresMetrics) -> Self {
        Self { metrics, ..self }
    }
}

impl VectorStore for PostgresStore {
    fn create<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        new: NewCollection,
    ) -> Operation<'a, Collection> {
        Box::pin(collections::create(&self.connections, collection_ref, new))
    }

    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>> {
        Box::pin(collections::list(&self.connections, tenant))
    }

    fn get<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Collection> {
        Box::pin(collections::get(&self.connections, collection_ref))
    }

    fn stats<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Stats> {
        Box::pin(collections::stats(&self.connections, collection_ref))
    }

    fn drop_collection<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, ()> {
        Box::pin(collections::drop_collection(&self.connections, collection_ref))
    }

    fn existing_chunks<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        documents: &'a [CheckedDocument],
    ) -> Operation<'a, Vec<Vec<bool>>> {
        Box::pin(read::existing_chunks(&self.connections, collection_ref, documents))
    }

    fn upsert<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        space: Option<SpaceId>,
        documents: Vec<CheckedDocument>,
    ) -> Operation<'a, UpsertResult> {
        Box::pin(async move {
            let upsert = write::upsert(&self.connections, collection_ref, space, documents);
            let result = timed(&self.metrics.upsert, upsert).await?;
            self.metrics.upserted.inc_by(result.added);
            Ok(result)
        })
    }

    fn documents<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<DocumentView>> {
        Box::pin(read::documents(&self.connections, collection_ref, page))
    }

    fn document<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        id: &'a str,
    ) -> Operation<'a, StoredDocument> {
        Box::pin(read::document(&self.connections, collection_ref, id))
    }

    fn export<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<StoredDocument>> {
        Box::pin(read::export(&self.connections, collection_ref, page))
    }

    fn delete<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        target: DeleteTarget<'a>,
    ) -> Operation<'a, u64> {
        Box::pin(async move {
            let deleted =
                timed(&self.metrics.delete, write::delete(&self.connections, collection_ref, target)).await?;
            self.metrics.deleted.inc_by(deleted);
            Ok(deleted)
        })
    }

    fn search<'a>(&'a self, collection_ref: CollectionRef<'a>, query: Query) -> Operation<'a, Vec<Hit>> {
        Box::pin(timed(&self.metrics.query, search::search(&self.connections, collection_ref, query)))
    }

    fn begin_migration<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        to: ModelBinding,
    ) -> Operation<'a, i64> {
        Box::pin(model_migration::begin_migration(&self.connections, collection_ref, to))
    }

    fn missing_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        limit: usize,
    ) -> Operation<'a, Vec<MissingVector>> {
        Box::pin(model_migration::missing_vectors(&self.connections, collection_ref, generation, limit))
    }

    fn insert_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()> {
        Box::pin(model_migration::insert_vectors(&self.connections, collection_ref, generation, vectors))
    }

    fn activate_generation<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
    ) -> Operation<'a, bool> {
        Box::pin(model_migration::activate_generation(&self.connections, collection_ref, generation))
    }

    fn backup<'a>(&'a self, _: &'a str) -> Operation<'a, Backup> {
        Box::pin(async {
            Err(StoreError::new(
                StoreErrorKind::Unsupported,
                "the collections are in PostgreSQL; back them up there, with pg_dump --schema=embeddery or continuous archiving",
            ))
        })
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, DeletionReceipt> {
        Box::pin(collections::delete_tenant(&self.connections, tenant))
    }

    fn health(&self) -> Operation<'_, ()> {
        Box::pin(async { self.connections.client().await.map(|_| ()) })
    }
}
