//! The second level in a file of this machine.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use embeddery_core::BoxFuture;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Key, LevelError, SecondLevel};

/// The version of the tables; kept in the file.
const VERSION: i64 = 1;

/// A cache in a SQLite file.
pub struct SqliteLevel(Arc<File>);

struct File {
    connection: Mutex<Connection>,
    max_bytes: u64,
}

impl SqliteLevel {
    /// Opens or makes the file. It may take `max_bytes`; beyond that, what was kept longest ago goes.
    ///
    /// # Errors
    /// When the file cannot be used, or was made by a newer version.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, LevelError> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version > VERSION {
            return Err(LevelError(format!(
                "it has version {version}, this program knows {VERSION}; remove the file or use the newer program"
            )));
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = NORMAL;
                 CREATE TABLE IF NOT EXISTS vectors (
                     key BLOB PRIMARY KEY, value BLOB NOT NULL, expires INTEGER NOT NULL
                 ) WITHOUT ROWID;
                 CREATE INDEX IF NOT EXISTS vectors_by_expiry ON vectors (expires);
                 PRAGMA user_version = 1;",
            )
            .map_err(failed)?;
        Ok(Self(Arc::new(File { connection: Mutex::new(connection), max_bytes })))
    }

    /// Work with the file, on a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LevelError>> {
        let file = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || {
                let mut connection = file.connection.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut connection, file.max_bytes)
            })
            .await
            .map_err(|_| LevelError("the file's thread failed".into()))?
            .map_err(failed)
        })
    }
}

impl SecondLevel for SqliteLevel {
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, LevelError>> {
        let keys = keys.to_vec();
        self.run(move |connection, _| {
            let now = seconds(SystemTime::now());
            let mut statement =
                connection.prepare_cached("SELECT value FROM vectors WHERE key = ?1 AND expires > ?2")?;
            keys.iter()
                .map(|key| statement.query_row(params![key.as_slice(), now], |row| row.get(0)).optional())
                .collect()
        })
    }

    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), LevelError>> {
        self.run(move |connection, max_bytes| {
            let now = seconds(SystemTime::now());
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
            shrink(&transaction, max_bytes)?;
            transaction.commit()
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<u64, LevelError>> {
        self.run(|connection, _| Ok(connection.execute("DELETE FROM vectors", [])? as u64))
    }
}

/// Makes room when the pages in use are more than allowed: a tenth goes at a time, so that this is rare.
fn shrink(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let used = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
    if used > i64::try_from(max_bytes).unwrap_or(i64::MAX) {
        connection.execute(
            "DELETE FROM vectors WHERE key IN (
                 SELECT key FROM vectors ORDER BY expires LIMIT (SELECT count(*) / 10 + 1 FROM vectors))",
            [],
        )?;
    }
    Ok(())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: rusqlite::Error) -> LevelError {
    LevelError(error.to_string())
}
