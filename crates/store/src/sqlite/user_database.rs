//! The users' databases: where each lies, which are open, and how to work in one.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::schema;
use crate::{Backup, DeletionReceipt, StoreError, StoreErrorKind};

/// The directory of a user, who is named as a directory can be: `accounts` maps every id to such a name. Only plain
/// names come through: a user is never a path.
pub fn user_directory(base: &Path, user: &str) -> Result<PathBuf, StoreError> {
    let plain = (1..=255).contains(&user.len())
        && !user.starts_with('.')
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-=@".contains(&byte));
    if plain {
        Ok(base.join(user))
    } else {
        Err(StoreError::invalid("the user's name cannot be a directory's"))
    }
}

/// The file's name in a user's directory.
const FILE: &str = "vectors.db";

/// How long a writer waits for one of another process.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pages of 8 KiB hold five vectors of 384 numbers; smaller ones would waste a quarter.
const PAGE_SIZE: usize = 8192;

/// All users.
pub(super) struct UserDatabases {
    base: PathBuf,
    max_open: usize,
    open: Mutex<HashMap<String, Arc<UserDatabase>>>,
    clock: AtomicU64,
}

/// One user's database.
pub(super) struct UserDatabase {
    directory: PathBuf,
    /// The file that is open. Another process may delete the user and begin anew; then this is another file.
    inode: u64,
    writer: Mutex<Connection>,
    /// Connections that rest between reads.
    readers: Mutex<Vec<Connection>>,
    used: AtomicU64,
}

impl UserDatabases {
    pub(super) fn new(base: PathBuf, max_open: usize) -> Self {
        Self { base, max_open: max_open.max(1), open: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// A user's database, opened, and made when there is none.
    pub(super) fn get(&self, user: &str) -> Result<Arc<UserDatabase>, StoreError> {
        let directory = user_directory(&self.base, user)?;
        let now = self.clock.fetch_add(1, Relaxed);
        let mut open = lock(&self.open);
        if let Some(found) = open.get(user) {
            if found.is_current() {
                found.used.store(now, Relaxed);
                return Ok(Arc::clone(found));
            }
            open.remove(user);
        }
        // The one unused for longest goes, unless somebody works in it right now.
        while open.len() >= self.max_open {
            let idle = open.iter().filter(|(_, user)| Arc::strong_count(user) == 1);
            let Some(name) =
                idle.min_by_key(|(_, user)| user.used.load(Relaxed)).map(|(name, _)| name.clone())
            else {
                break;
            };
            open.remove(&name);
        }
        let found = Arc::new(UserDatabase::open(directory)?);
        found.used.store(now, Relaxed);
        open.insert(user.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    /// Removes a user's database, and says what was in it.
    pub(super) fn delete(&self, user: &str) -> Result<DeletionReceipt, StoreError> {
        let directory = user_directory(&self.base, user)?;
        if !directory.join(FILE).exists() {
            return Ok(DeletionReceipt::default());
        }
        let found = self.get(user)?;
        let receipt = found.write(|tx| {
            let count =
                |table: &str| tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
            let receipt = DeletionReceipt {
                collections: count("collections")?,
                documents: count("documents")?,
                vectors: count("vectors")?,
            };
            // While the write lock is held, so that no other process can be told that it has stored something
            // in a file that is about to go: who waits for the lock looks again which file is there.
            remove_files(&directory).map_err(|error| {
                tracing::error!(%error, "a user's files cannot be removed");
                StoreError::unavailable("the user's files cannot be removed; the server's log knows more")
            })?;
            Ok(receipt)
        })?;
        lock(&self.open).remove(user);
        Ok(receipt)
    }

    /// Whether the disk has room.
    pub(super) fn check_space(&self, least: u64) -> Result<(), StoreError> {
        let Some(there) = self.base.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let disk = rustix::fs::statvfs(there).map_err(|error| {
            tracing::error!(%error, "the disk does not tell how full it is");
            StoreError::unavailable("the disk of the collections is out of reach")
        })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= least {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::Full,
            format!(
                "the disk has {} MiB free, {} MiB are kept in reserve; delete collections, or make room",
                free >> 20,
                least >> 20
            ),
        ))
    }
}

impl UserDatabase {
    fn open(directory: PathBuf) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let refused = |error: std::io::Error| {
            tracing::error!(%error, path = %path.display(), "a user's database cannot be opened");
            StoreError::unavailable("the user's database cannot be opened; the server's log knows more")
        };
        fs::create_dir_all(&directory).map_err(refused)?;
        let mut writer = Connection::open(&path)?;
        prepare(&writer)?;
        // Both hold from the file's first page on; on a file that has them they change nothing.
        writer.pragma_update(None, "page_size", PAGE_SIZE)?;
        writer.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        // Each commit is on the disk before it is acknowledged: power may fail, too.
        writer.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut writer)?;
        let inode = fs::metadata(&path).map_err(refused)?.ino();
        Ok(Self {
            directory,
            inode,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            used: AtomicU64::new(0),
        })
    }

    /// Which file is open.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether the file that is open is the one that lies there.
    fn is_current(&self) -> bool {
        fs::metadata(self.directory.join(FILE)).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// A transaction that writes: all of it or nothing. Nobody else writes meanwhile, also no other process.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !self.is_current() {
            return Err(StoreError::unavailable("the user was deleted a moment ago; try again"));
        }
        let done = work(&tx)?;
        tx.commit()?;
        // What was deleted gives its pages back, a few at a time.
        writer.execute_batch("PRAGMA incremental_vacuum(256)")?;
        Ok(done)
    }

    /// A transaction that reads: all of it sees one moment.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let resting = lock(&self.readers).pop();
        let mut reader = match resting {
            Some(reader) => reader,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let reader = Connection::open_with_flags(self.directory.join(FILE), flags)?;
                prepare(&reader)?;
                reader.pragma_update(None, "query_only", true)?;
                reader
            }
        };
        let done = reader.transaction().map_err(StoreError::from).and_then(|tx| work(&tx));
        lock(&self.readers).push(reader);
        done
    }

    /// Copies the database as it is at one moment.
    pub(super) fn backup(&self) -> Result<Backup, StoreError> {
        let directory = self.directory.join("backups");
        let refused = |error: std::io::Error| {
            tracing::error!(%error, "a backup cannot be written");
            StoreError::unavailable("the backup cannot be written; the server's log knows more")
        };
        fs::create_dir_all(&directory).map_err(refused)?;
        let name = format!("vectors-{}.db", uuid::Uuid::now_v7());
        let (path, draft) = (directory.join(&name), directory.join(format!("{name}.part")));
        let reader = Connection::open(self.directory.join(FILE))?;
        prepare(&reader)?;
        let copied = reader
            .execute("VACUUM INTO ?1", [draft.to_string_lossy()])
            .map_err(StoreError::from)
            .and_then(|_| {
                fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(refused)?;
                fs::rename(&draft, &path).map_err(refused)
            });
        if let Err(error) = copied {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        let bytes = fs::metadata(&path).map_err(refused)?.len();
        Ok(Backup { name, bytes })
    }
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -16_384)?; // KiB, a connection
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn remove_files(directory: &Path) -> std::io::Result<()> {
    for name in ["vectors.db", "vectors.db-wal", "vectors.db-shm"] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir_all(directory.join("backups")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Other parts of the service may keep something here; then it stays.
    let _ = fs::remove_dir(directory);
    Ok(())
}

/// A lock whose holder panicked still guards a database that rolls back by itself.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_never_a_path() {
        let base = Path::new("/base");
        assert_eq!(user_directory(base, "1").unwrap(), Path::new("/base/1"));
        for bad in ["", "..", ".embeddery", "a/b", "../x", "a\0b", "ü"] {
            assert!(user_directory(base, bad).is_err(), "{bad}");
        }
    }
}
