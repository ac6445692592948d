//! The users' databases: where the files are, which are open, and how to read and write one.

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

use embeddery_database::sqlite::{self, Layout, OpenError, OpenOptions, ReaderPool, Synchronous};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::schema;
use crate::{Backup, DeletionReceipt, StoreError, StoreErrorKind};

/// The directory of a user. `accounts` maps every user id to a valid directory name.
///
/// # Errors
/// If the name is not that of a directory: a user id must never become a path.
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

/// Each commit is on the disk before it is acknowledged, so that it outlives a power cut.
const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(10),
    synchronous: Synchronous::Full,
    layout: Layout::LargeRows,
    statement_cache: 64,
};

/// The databases of all users.
pub(super) struct UserDatabases {
    base: PathBuf,
    max_open: usize,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    clock: AtomicU64,
}

/// The place of a user's database among the open ones. Opening it may take long, because it migrates the file: meanwhile
/// only this user's requests wait.
#[derive(Default)]
struct Slot {
    database: Mutex<Option<Arc<UserDatabase>>>,
    /// Held while the database is opened. A request waits for it without a thread.
    opening: Arc<tokio::sync::Mutex<()>>,
    last_used: AtomicU64,
}

impl Slot {
    fn is_open(&self) -> bool {
        self.database.try_lock().is_ok_and(|database| database.is_some())
    }

    /// Whether no request uses the slot or its database. The caller holds the lock of the map, so that none begins to.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && lock(&self.database).as_ref().is_none_or(|database| Arc::strong_count(database) == 1)
    }
}

/// One user's database.
pub(super) struct UserDatabase {
    directory: PathBuf,
    /// The inode of the open file. If another process deletes the user and creates a new file, its inode differs.
    inode: u64,
    writer: Mutex<Connection>,
    readers: ReaderPool,
}

impl UserDatabases {
    pub(super) fn new(base: PathBuf, max_open: usize) -> Self {
        Self { base, max_open: max_open.max(1), slots: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// Waits until no other request opens the user's database. Returns `None` if it is open, and otherwise a guard to
    /// hold while [`get`](Self::get) opens it. A request that waits here holds no thread.
    pub(super) async fn turn_to_open(
        &self,
        user: &str,
    ) -> Result<Option<tokio::sync::OwnedMutexGuard<()>>, StoreError> {
        user_directory(&self.base, user)?;
        let slot = self.slot(user);
        if slot.is_open() {
            return Ok(None);
        }
        let turn = Arc::clone(&slot.opening).lock_owned().await;
        Ok((!slot.is_open()).then_some(turn))
    }

    /// A user's database, opened and created if necessary.
    pub(super) fn get(&self, user: &str) -> Result<Arc<UserDatabase>, StoreError> {
        let directory = user_directory(&self.base, user)?;
        let slot = self.slot(user);
        let mut database = lock(&slot.database);
        if let Some(found) = database.as_ref().filter(|found| found.is_current()) {
            return Ok(Arc::clone(found));
        }
        // A file that another process deleted is closed first.
        *database = None;
        let opened = Arc::new(UserDatabase::open(directory)?);
        *database = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// The slot of a user, which is made if necessary.
    fn slot(&self, user: &str) -> Arc<Slot> {
        let now = self.clock.fetch_add(1, Relaxed);
        // Databases are closed without the lock of the map.
        let mut closed = Vec::new();
        let mut slots = lock(&self.slots);
        let found = match slots.get(user) {
            Some(slot) => Arc::clone(slot),
            None => {
                // The least recently used one that is not in use is closed.
                while slots.len() >= self.max_open {
                    let idle = slots.iter().filter(|(_, slot)| slot.is_idle());
                    let Some(name) = idle
                        .min_by_key(|(_, slot)| slot.last_used.load(Relaxed))
                        .map(|(name, _)| name.clone())
                    else {
                        break;
                    };
                    closed.extend(slots.remove(&name));
                }
                Arc::clone(slots.entry(user.to_owned()).or_default())
            }
        };
        found.last_used.store(now, Relaxed);
        drop(slots);
        drop(closed);
        found
    }

    /// Removes a user's database, and returns what was in it.
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
            // The write lock is held meanwhile, so that no other process stores something in a file that is about to
            // be removed: a process that waited for the lock checks the inode.
            remove_files(&directory).map_err(|error| {
                tracing::error!(%error, "a user's files cannot be removed");
                StoreError::unavailable("the user's files cannot be removed; the server's log knows more")
            })?;
            Ok(receipt)
        })?;
        lock(&self.slots).remove(user);
        Ok(receipt)
    }

    /// Checks that the disk has this much space.
    pub(super) fn check_space(&self, min_free_bytes: u64) -> Result<(), StoreError> {
        let Some(there) = self.base.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let disk = rustix::fs::statvfs(there).map_err(|error| {
            tracing::error!(%error, "the disk does not tell how full it is");
            StoreError::unavailable("the disk of the collections is out of reach")
        })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= min_free_bytes {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::Full,
            format!(
                "the disk has {} MiB free, {} MiB are kept in reserve; delete collections, or make room",
                free >> 20,
                min_free_bytes >> 20
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
        let writer = sqlite::open(&path, schema::MIGRATIONS, &OPTIONS).map_err(|error| match error {
            OpenError::Create { source, .. } => refused(source),
            OpenError::Newer { found, known, .. } => schema::too_new(found, known),
            OpenError::Unusable { source, .. } => source.into(),
        })?;
        let inode = fs::metadata(&path).map_err(refused)?.ino();
        Ok(Self { directory, inode, writer: Mutex::new(writer), readers: ReaderPool::new(&path, OPTIONS) })
    }

    /// The inode of the open file.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether the open file is still the one in the directory.
    fn is_current(&self) -> bool {
        fs::metadata(self.directory.join(FILE)).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Runs `work` in a transaction that writes: all of it or nothing. No other process writes at the same time.
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
        // Free pages are returned to the file system, a few at a time.
        writer.execute_batch("PRAGMA incremental_vacuum(256)")?;
        Ok(done)
    }

    /// Runs `work` in a transaction that reads: all that it reads is of the same moment.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.read(work)
    }

    /// Copies the database as it is at one moment into a file of the backup directory.
    pub(super) fn backup(&self) -> Result<Backup, StoreError> {
        let directory = self.directory.join("backups");
        let refused = |error: std::io::Error| {
            tracing::error!(%error, "a backup cannot be written");
            StoreError::unavailable("the backup cannot be written; the server's log knows more")
        };
        fs::create_dir_all(&directory).map_err(refused)?;
        let name = format!("vectors-{}.db", uuid::Uuid::now_v7());
        let (path, draft) = (directory.join(&name), directory.join(format!("{name}.part")));
        let reader = sqlite::open_reader(&self.directory.join(FILE), &OPTIONS)?;
        // VACUUM INTO writes another file, which query_only forbids, too.
        reader.pragma_update(None, "query_only", false)?;
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
    // Other parts of the service may have files here; then the directory stays.
    let _ = fs::remove_dir(directory);
    Ok(())
}

/// Locks; the data stays valid if a holder panics, because a database rolls back by itself.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_never_a_path() {
        let base = Path::new("/base");
        assert_eq!(user_directory(base, "1").unwrap(), Path::new("/base/1"));
        for bad in ["", "..", ".embeddery", "a/b", "../x", "a\0b", "ü"] {
            assert!(user_directory(base, bad).is_err(), "{bad}");
        }
    }
}
