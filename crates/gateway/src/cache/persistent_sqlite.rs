//! The persistent cache in an SQLite file of this host.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use embeddery_core::BoxFuture;
use embeddery_database::sqlite::{self, Layout, OpenOptions, Synchronous};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{CacheError, Key, PersistentCache};

/// Script n brings schema n to n + 1. A released script never changes.
const MIGRATIONS: &[&str] = &["
CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vectors_by_expiry ON vectors (expires);
"];

const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(5),
    synchronous: Synchronous::Normal,
    layout: Layout::SmallRows,
    statement_cache: 16,
};

/// A persistent cache in an SQLite file.
pub struct SqliteCache(Arc<File>);

struct File {
    connection: Mutex<Connection>,
    max_bytes: u64,
}

impl SqliteCache {
    /// Opens the file, and creates it if it is missing. Above `max_bytes` the entries that expire first are removed.
    ///
    /// # Errors
    /// If the file cannot be used, or belongs to a newer version of the program.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let connection =
            sqlite::open(path, MIGRATIONS, &OPTIONS).map_err(|error| CacheError(error.to_string()))?;
        Ok(Self(Arc::new(File { connection: Mutex::new(connection), max_bytes })))
    }

    /// Runs `work` with the file, on a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, CacheError>> {
        let file = Arc::clone(&self.0);
        Box::pin(async move {
            let result = tokio::task::spawn_blocking(move || {
                let mut connection = file.connection.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut connection, file.max_bytes)
            });
            let result = result.await.map_err(|_| CacheError("the thread of the file panicked".into()))?;
            result.map_err(|error| CacheError(error.to_string()))
        })
    }
}

impl PersistentCache for SqliteCache {
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, CacheError>> {
        let keys = keys.to_vec();
        self.run(move |connection, _| {
            let now = unix_seconds(SystemTime::now());
            let mut statement =
                connection.prepare_cached("SELECT value FROM vectors WHERE key = ?1 AND expires > ?2")?;
            keys.iter()
                .map(|key| statement.query_row(params![key.as_slice(), now], |row| row.get(0)).optional())
                .collect()
        })
    }

    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), CacheError>> {
        self.run(move |connection, max_bytes| {
            let now = unix_seconds(SystemTime::now());
            let expires = now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO vectors (key, value, expires) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
                )?;
                for (key, value) in &entries {
                    statement.execute(params![key.as_slice(), value, expires])?;
                }
                transaction.prepare_cached("DELETE FROM vectors WHERE expires <= ?1")?.execute([now])?;
            }
            remove_excess(&transaction, max_bytes)?;
            transaction.commit()
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<u64, CacheError>> {
        self.run(|connection, _| Ok(connection.execute("DELETE FROM vectors", [])? as u64))
    }
}

/// Removes a tenth of the entries if the pages in use exceed the limit. A tenth at a time keeps this rare.
fn remove_excess(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let used_bytes = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
    if used_bytes > i64::try_from(max_bytes).unwrap_or(i64::MAX) {
        connection.execute(
            "DELETE FROM vectors WHERE key IN (
                 SELECT key FROM vectors ORDER BY expires LIMIT (SELECT count(*) / 10 + 1 FROM vectors))",
            [],
        )?;
    }
    Ok(())
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
