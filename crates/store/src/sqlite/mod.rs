//! The embedded store: one SQLite database per user, with an exact search. The database is the only state on disk. The
//! matrices that make the search fast are built from it, checked against it by every search, and evicted when memory is
//! short. Several processes may serve one directory.
//!
//! - [`user_database`] opens databases and keeps them open;
//! - [`schema`] holds the tables and their migrations;
//! - [`collections`], [`mod@write`], [`read`], [`search`] and [`model_migration`] are the operations, each one transaction;
//! - [`tombstones`] records deletions;
//! - [`matrix_cache`] keeps the matrices up to date with the database;
//! - [`filter`] compiles a filter to SQL.

mod collections;
mod filter;
mod matrix_cache;
mod model_migration;
mod read;
mod schema;
mod search;
mod tombstones;
mod user_database;
mod write;

use std::{path::PathBuf, sync::Arc};

use embeddery_core::SpaceId;
use rusqlite::Transaction;
use tokio::sync::Semaphore;

use crate::{
    Backup, CheckedDocument, Collection, CollectionRef, DeleteTarget, DeletionReceipt, DocumentView, Hit,
    MissingVector, ModelBinding, NewCollection, PageRequest, Query, Stats, StoreError, StoredDocument,
    UpsertResult, VectorStore, store::Operation,
};
use matrix_cache::MatrixCache;
use user_database::UserDatabases;

/// Configuration of the embedded store.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// Directory that holds the directories of all users.
    pub base_dir: PathBuf,
    /// Maximum number of databases that stay open.
    pub open_users: usize,
    /// Memory in bytes for the matrices of all users. A collection whose matrix is larger than this is searched on disk.
    pub matrix_bytes: usize,
    /// Maximum number of threads of one search.
    pub search_threads: usize,
    /// Bytes of the disk that stay free: with less, writes fail with [`Full`](crate::StoreErrorKind::Full).
    pub min_free_bytes: u64,
}

/// The embedded store.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    users: UserDatabases,
    matrices: MatrixCache,
    search_threads: usize,
    min_free_bytes: u64,
    /// Permits of concurrent reads.
    readers: Arc<Semaphore>,
}

impl SqliteStore {
    /// A store in a directory, which is created when it is needed.
    pub fn new(config: SqliteConfig) -> Self {
        Self(Arc::new(Inner {
            users: UserDatabases::new(config.base_dir, config.open_users),
            matrices: MatrixCache::new(config.matrix_bytes),
            search_threads: config.search_threads.max(1),
            min_free_bytes: config.min_free_bytes,
            readers: Arc::new(Semaphore::new(max_readers())),
        }))
    }

    /// Runs `work` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| StoreError::internal(format!("a database task did not finish: {error}")))?
    }

    /// Runs a transaction that writes to the user's database, unless the disk is nearly full.
    async fn write<T: Send + 'static>(
        &self,
        collection_ref: CollectionRef<'_>,
        work: impl FnOnce(&Transaction<'_>, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tenant, collection) = owned(collection_ref);
        self.open(&tenant).await?;
        self.run(move |inner| {
            inner.users.check_space(inner.min_free_bytes)?;
            inner.users.get(&tenant)?.write(|tx| work(tx, &collection))
        })
        .await
    }

    /// Opens a user's database, unless it is open. Of the requests of a user one opens it and the others wait without a
    /// thread and without a permit. It is opened to the end, also if the request ends before.
    async fn open(&self, tenant: &str) -> Result<(), StoreError> {
        let Some(turn) = self.0.users.turn_to_open(tenant).await? else { return Ok(()) };
        let tenant = tenant.to_owned();
        self.run(move |inner| {
            let _turn = turn;
            inner.users.get(&tenant).map(drop)
        })
        .await
    }

    /// Runs a transaction that reads from the user's database.
    async fn read<T: Send + 'static>(
        &self,
        collection_ref: CollectionRef<'_>,
        work: impl FnOnce(&Transaction<'_>, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tenant, collection) = owned(collection_ref);
        self.open(&tenant).await?;
        self.run_read(move |inner| inner.users.get(&tenant)?.read(|tx| work(tx, &collection))).await
    }

    /// Runs a read when a permit is free. A caller that waits for a permit holds neither a thread nor a connection.
    async fn run_read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.0.readers).acquire_owned().await.map_err(StoreError::internal)?;
        self.run(move |inner| {
            let _permit = permit;
            work(inner)
        })
        .await
    }
}

/// Maximum number of concurrent reads. It keeps all cores busy while some reads wait for the disk.
fn max_readers() -> usize {
    4 * std::thread::available_parallelism().map_or(2, usize::from)
}

/// Returns the tenant and the name of the collection, for another thread.
fn owned(collection_ref: CollectionRef<'_>) -> (String, String) {
    (collection_ref.tenant.to_owned(), collection_ref.collection.to_owned())
}

/// Returns the cursor and the limit of a page, for another thread.
fn owned_page(page: PageRequest<'_>) -> (String, usize) {
    // No id is empty, so the empty cursor comes before all ids.
    (page.after.unwrap_or_default().to_owned(), page.limit)
}

impl VectorStore for SqliteStore {
    fn create<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        new: NewCollection,
    ) -> Operation<'a, Collection> {
        Box::pin(async move {
            crate::check_name(collection_ref.collection)?;
            new.check()?;
            self.write(collection_ref, move |tx, name| collections::create(tx, name, &new)).await
        })
    }

    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>> {
        Box::pin(self.read(CollectionRef { tenant, collection: "" }, |tx, _| collections::list(tx)))
    }

    fn get<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Collection> {
        Box::pin(self.read(collection_ref, |tx, name| Ok(collections::find(tx, name)?.view)))
    }

    fn stats<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, Stats> {
        Box::pin(self.read(collection_ref, collections::stats))
    }

    fn drop_collection<'a>(&'a self, collection_ref: CollectionRef<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            let (tenant, name) = owned(collection_ref);
            self.open(&tenant).await?;
            // No check of the free space: a deletion must succeed on a full disk.
            self.run(move |inner| {
                inner.users.get(&tenant)?.write(|tx| collections::drop_collection(tx, &name))?;
                inner.matrices.remove_user(&tenant);
                Ok(())
            })
            .await
        })
    }

    fn existing_chunks<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        documents: &'a [CheckedDocument],
    ) -> Operation<'a, Vec<Vec<bool>>> {
        let keys: Vec<_> = documents
            .iter()
            .map(|document| {
                let texts = document.chunks.iter().map(|chunk| chunk.text.as_str());
                (document.id.clone(), crate::fingerprints(texts))
            })
            .collect();
        Box::pin(self.read(collection_ref, move |tx, name| read::existing_chunks(tx, name, &keys)))
    }

    fn upsert<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        space: Option<SpaceId>,
        documents: Vec<CheckedDocument>,
    ) -> Operation<'a, UpsertResult> {
        Box::pin(
            self.write(collection_ref, move |tx, name| write::upsert(tx, name, space.as_ref(), &documents)),
        )
    }

    fn documents<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<DocumentView>> {
        let (after, limit) = owned_page(page);
        Box::pin(self.read(collection_ref, move |tx, name| read::documents(tx, name, &after, limit)))
    }

    fn document<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        id: &'a str,
    ) -> Operation<'a, StoredDocument> {
        let (tenant, id) = (collection_ref.tenant.to_owned(), id.to_owned());
        Box::pin(self.read(collection_ref, move |tx, name| {
            read::document(tx, CollectionRef { tenant: &tenant, collection: name }, &id)
        }))
    }

    fn export<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        page: PageRequest<'a>,
    ) -> Operation<'a, Vec<StoredDocument>> {
        let (tenant, (after, limit)) = (collection_ref.tenant.to_owned(), owned_page(page));
        Box::pin(self.read(collection_ref, move |tx, name| {
            read::export(tx, CollectionRef { tenant: &tenant, collection: name }, &after, limit)
        }))
    }

    fn delete<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        target: DeleteTarget<'a>,
    ) -> Operation<'a, u64> {
        Box::pin(async move {
            let (tenant, name) = owned(collection_ref);
            self.open(&tenant).await?;
            // No check of the free space, as in `drop_collection`.
            let delete = move |inner: &Inner, target: DeleteTarget<'_>| {
                inner.users.get(&tenant)?.write(|tx| write::delete(tx, &name, target))
            };
            // The target is copied for another thread.
            match target {
                DeleteTarget::Ids(ids) => {
                    let ids = ids.to_vec();
                    self.run(move |inner| delete(inner, DeleteTarget::Ids(&ids))).await
                }
                DeleteTarget::Where(filter) => {
                    let filter = filter.clone();
                    self.run(move |inner| delete(inner, DeleteTarget::Where(&filter))).await
                }
                DeleteTarget::All => self.run(move |inner| delete(inner, DeleteTarget::All)).await,
            }
        })
    }

    fn search<'a>(&'a self, collection_ref: CollectionRef<'a>, query: Query) -> Operation<'a, Vec<Hit>> {
        Box::pin(async move {
            let (tenant, collection) = owned(collection_ref);
            self.open(&tenant).await?;
            // A search takes no reader's permit, because the first search of a collection loads its matrix, which takes
            // long; other reads would wait for it.
            self.run(move |inner| {
                search::search(inner, CollectionRef { tenant: &tenant, collection: &collection }, &query)
            })
            .await
        })
    }

    fn begin_migration<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        to: ModelBinding,
    ) -> Operation<'a, i64> {
        Box::pin(self.write(collection_ref, move |tx, name| model_migration::begin_migration(tx, name, &to)))
    }

    fn missing_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        limit: usize,
    ) -> Operation<'a, Vec<MissingVector>> {
        Box::pin(self.read(collection_ref, move |tx, name| {
            model_migration::missing_vectors(tx, name, generation, limit)
        }))
    }

    fn insert_vectors<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()> {
        Box::pin(self.write(collection_ref, move |tx, name| {
            model_migration::insert_vectors(tx, name, generation, &vectors)
        }))
    }

    fn activate_generation<'a>(
        &'a self,
        collection_ref: CollectionRef<'a>,
        generation: i64,
    ) -> Operation<'a, bool> {
        Box::pin(async move {
            let activated = self
                .write(collection_ref, move |tx, name| {
                    model_migration::activate_generation(tx, name, generation)
                })
                .await?;
            // No search uses the matrix of the previous generation any more.
            self.0.matrices.remove_user(collection_ref.tenant);
            Ok(activated)
        })
    }

    fn backup<'a>(&'a self, tenant: &'a str) -> Operation<'a, Backup> {
        Box::pin(async move {
            self.open(tenant).await?;
            let tenant = tenant.to_owned();
            self.run(move |inner| {
                inner.users.check_space(inner.min_free_bytes)?;
                inner.users.get(&tenant)?.backup()
            })
            .await
        })
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, DeletionReceipt> {
        let tenant = tenant.to_owned();
        Box::pin(self.run(move |inner| {
            let receipt = inner.users.delete(&tenant)?;
            inner.matrices.remove_user(&tenant);
            Ok(receipt)
        }))
    }

    fn health(&self) -> Operation<'_, ()> {
        Box::pin(self.run(|inner| inner.users.check_space(inner.min_free_bytes)))
    }
}

/// Maps a failure of SQLite. Text that names the cause goes to the log, not to the client.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::new(
                crate::StoreErrorKind::Full,
                "the disk is full and nothing of this request was stored; free some space and send it again",
            ),
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::unavailable("another process is writing to the collections of this user; try again")
            }
            Some(ReadOnly | SystemIoFailure) => {
                tracing::error!(%error, "SQLite cannot read or write the database");
                Self::unavailable("the disk failed to read or write; the server's log has the cause")
            }
            _ => Self::internal(error),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::internal(format!("a stored value has the wrong type: {error}"))
    }
}
