//! The embedded store: one SQLite database per user, exact search. SQLite is the truth and the only thing on disk;
//! the matrices that make search fast are made from it, checked against it at every search, and thrown away when
//! memory is short. Several processes may serve one directory.
//!
//! - [`user_database`] opens databases and knows which are open;
//! - [`schema`] holds the migration scripts of one;
//! - [`collections`], [`write`], [`read`], [`search`], [`migrate`] are the operations, each one transaction;
//! - [`matrices`] keeps matrices in step with the database;
//! - [`filter`] turns a filter into SQL.

mod collections;
mod deletions;
mod filter;
mod matrices;
mod migrate;
mod read;
mod schema;
mod search;
mod user_database;
mod write;

use std::{path::PathBuf, sync::Arc};

use embeddery_core::SpaceId;
use rusqlite::Transaction;
use tokio::sync::Semaphore;

use crate::{
    Backup, Binding, Collection, Document, DocumentView, Hit, NewCollection, Page, Pending, Place, Query,
    Receipt, Removal, Stats, StoreError, StoredDocument, VectorStore, Written, store::Operation,
};
use matrices::Matrices;
use user_database::UserDatabases;
pub use user_database::user_directory;

/// How the embedded store works.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The directory of all users' directories.
    pub base_dir: PathBuf,
    /// How many users' databases stay open.
    pub open_users: usize,
    /// Memory for matrices, over all users. A collection that does not fit alone is searched on disk.
    pub matrix_bytes: usize,
    /// Threads of one search.
    pub search_threads: usize,
    /// Writes are refused when the disk has less free than this.
    pub min_free_bytes: u64,
}

/// The embedded store.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    users: UserDatabases,
    matrices: Matrices,
    search_threads: usize,
    min_free_bytes: u64,
    reading: Arc<Semaphore>,
}

impl SqliteStore {
    /// A store over a directory, which need not exist yet.
    pub fn new(config: SqliteConfig) -> Self {
        Self(Arc::new(Inner {
            users: UserDatabases::new(config.base_dir, config.open_users),
            matrices: Matrices::new(config.matrix_bytes),
            search_threads: config.search_threads.max(1),
            min_free_bytes: config.min_free_bytes,
            reading: Arc::new(Semaphore::new(most_readers())),
        }))
    }

    /// Runs `work` where it may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| StoreError::internal(format!("a database task ended early: {error}")))?
    }

    async fn write<T: Send + 'static>(
        &self,
        place: Place<'_>,
        work: impl FnOnce(&Transaction<'_>, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tenant, collection) = owned(place);
        self.run(move |inner| {
            inner.users.check_space(inner.min_free_bytes)?;
            inner.users.get(&tenant)?.write(|tx| work(tx, &collection))
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        place: Place<'_>,
        work: impl FnOnce(&Transaction<'_>, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tenant, collection) = owned(place);
        self.look(move |inner| inner.users.get(&tenant)?.read(|tx| work(tx, &collection))).await
    }

    /// Runs what only reads, with so many others at most: who waits holds neither a thread nor a connection.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.0.reading).acquire_owned().await.map_err(StoreError::internal)?;
        self.run(move |inner| {
            let _permit = permit;
            work(inner)
        })
        .await
    }
}

/// Reads at a time: enough to keep the cores busy while some wait for the disk.
fn most_readers() -> usize {
    4 * std::thread::available_parallelism().map_or(2, usize::from)
}

fn owned(place: Place<'_>) -> (String, String) {
    (place.tenant.to_owned(), place.collection.to_owned())
}

/// A page with its own cursor, for work on another thread.
fn owned_page(page: Page<'_>) -> (String, usize) {
    // No id is empty, so that the empty one comes before all.
    (page.after.unwrap_or_default().to_owned(), page.limit)
}

impl VectorStore for SqliteStore {
    fn create<'a>(&'a self, place: Place<'a>, new: NewCollection) -> Operation<'a, Collection> {
        Box::pin(async move {
            crate::check_name(place.collection)?;
            self.write(place, move |tx, name| collections::create(tx, name, &new)).await
        })
    }

    fn list<'a>(&'a self, tenant: &'a str) -> Operation<'a, Vec<Collection>> {
        Box::pin(self.read(Place { tenant, collection: "" }, |tx, _| collections::list(tx)))
    }

    fn get<'a>(&'a self, place: Place<'a>) -> Operation<'a, Collection> {
        Box::pin(self.read(place, |tx, name| Ok(collections::find(tx, name)?.view)))
    }

    fn stats<'a>(&'a self, place: Place<'a>) -> Operation<'a, Stats> {
        Box::pin(self.read(place, collections::stats))
    }

    fn drop_collection<'a>(&'a self, place: Place<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            let (tenant, name) = owned(place);
            // A full disk must not hinder those who make room.
            self.run(move |inner| {
                inner.users.get(&tenant)?.write(|tx| collections::drop(tx, &name))?;
                inner.matrices.forget(&tenant);
                Ok(())
            })
            .await
        })
    }

    fn stored<'a>(&'a self, place: Place<'a>, documents: &'a [Document]) -> Operation<'a, Vec<Vec<bool>>> {
        let keys: Vec<_> = documents
            .iter()
            .map(|document| {
                let texts = document.chunks.iter().map(|chunk| chunk.text.as_str());
                (document.id.clone(), crate::fingerprints(texts))
            })
            .collect();
        Box::pin(self.read(place, move |tx, name| read::stored(tx, name, &keys)))
    }

    fn upsert<'a>(
        &'a self,
        place: Place<'a>,
        space: Option<SpaceId>,
        documents: Vec<Document>,
    ) -> Operation<'a, Written> {
        Box::pin(self.write(place, move |tx, name| write::upsert(tx, name, space.as_ref(), &documents)))
    }

    fn documents<'a>(&'a self, place: Place<'a>, page: Page<'a>) -> Operation<'a, Vec<DocumentView>> {
        let (after, limit) = owned_page(page);
        Box::pin(self.read(place, move |tx, name| read::documents(tx, name, &after, limit)))
    }

    fn document<'a>(&'a self, place: Place<'a>, id: &'a str) -> Operation<'a, StoredDocument> {
        let (tenant, id) = (place.tenant.to_owned(), id.to_owned());
        Box::pin(self.read(place, move |tx, name| {
            read::document(tx, Place { tenant: &tenant, collection: name }, &id)
        }))
    }

    fn export<'a>(&'a self, place: Place<'a>, page: Page<'a>) -> Operation<'a, Vec<StoredDocument>> {
        let (tenant, (after, limit)) = (place.tenant.to_owned(), owned_page(page));
        Box::pin(self.read(place, move |tx, name| {
            read::export(tx, Place { tenant: &tenant, collection: name }, &after, limit)
        }))
    }

    fn delete<'a>(&'a self, place: Place<'a>, removal: Removal<'a>) -> Operation<'a, u64> {
        let removal = match removal {
            Removal::Ids(ids) => Ok(ids.to_vec()),
            Removal::Where(filter) => Err(filter.clone()),
        };
        Box::pin(async move {
            let (tenant, name) = owned(place);
            self.run(move |inner| {
                inner.users.get(&tenant)?.write(|tx| match &removal {
                    Ok(ids) => write::delete(tx, &name, Removal::Ids(ids)),
                    Err(filter) => write::delete(tx, &name, Removal::Where(filter)),
                })
            })
            .await
        })
    }

    fn search<'a>(&'a self, place: Place<'a>, query: Query) -> Operation<'a, Vec<Hit>> {
        Box::pin(async move {
            let (tenant, collection) = owned(place);
            // Not among the readers: the first search of a collection waits for its vectors to be read, and nobody else shall.
            self.run(move |inner| {
                search::search(inner, Place { tenant: &tenant, collection: &collection }, &query)
            })
            .await
        })
    }

    fn begin_migration<'a>(&'a self, place: Place<'a>, to: Binding) -> Operation<'a, i64> {
        Box::pin(self.write(place, move |tx, name| migrate::begin(tx, name, &to)))
    }

    fn pending<'a>(&'a self, place: Place<'a>, generation: i64, limit: usize) -> Operation<'a, Vec<Pending>> {
        Box::pin(self.read(place, move |tx, name| migrate::pending(tx, name, generation, limit)))
    }

    fn fill<'a>(
        &'a self,
        place: Place<'a>,
        generation: i64,
        vectors: Vec<(i64, Vec<f32>)>,
    ) -> Operation<'a, ()> {
        Box::pin(self.write(place, move |tx, name| migrate::fill(tx, name, generation, &vectors)))
    }

    fn flip<'a>(&'a self, place: Place<'a>, generation: i64) -> Operation<'a, bool> {
        Box::pin(async move {
            let flipped = self.write(place, move |tx, name| migrate::flip(tx, name, generation)).await?;
            // The old generation's matrix would never be asked for again.
            self.0.matrices.forget(place.tenant);
            Ok(flipped)
        })
    }

    fn backup<'a>(&'a self, tenant: &'a str) -> Operation<'a, Backup> {
        let tenant = tenant.to_owned();
        Box::pin(self.run(move |inner| {
            inner.users.check_space(inner.min_free_bytes)?;
            inner.users.get(&tenant)?.backup()
        }))
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> Operation<'a, Receipt> {
        let tenant = tenant.to_owned();
        Box::pin(self.run(move |inner| {
            let receipt = inner.users.delete(&tenant)?;
            inner.matrices.forget(&tenant);
            Ok(receipt)
        }))
    }

    fn health(&self) -> Operation<'_, ()> {
        Box::pin(self.run(|inner| inner.users.check_space(inner.min_free_bytes)))
    }
}

/// A database's failure, as the store says it.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::new(
                crate::StoreErrorKind::Full,
                "the disk is full; nothing of this request was stored; make room and send it again",
            ),
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::unavailable("another process writes to this user's collections; try again")
            }
            Some(ReadOnly | SystemIoFailure) => {
                tracing::error!(%error, "the database cannot be read or written");
                Self::unavailable("the disk refuses to read or write; the server's log knows more")
            }
            _ => Self::internal(error),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::internal(format!("a stored value is of the wrong type: {error}"))
    }
}
