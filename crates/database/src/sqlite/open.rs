//! Opening a file: the directory and the file are created, the settings applied, and the schema migrated.
//!
//! The schema's version is SQLite's own `user_version`. The crate `rusqlite_migration` counts the same way, but it reads
//! the version outside its transaction, so that two processes that start at once may both apply a migration.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use thiserror::Error;

/// A step from one version of a schema to the next. A released step never changes.
#[derive(Clone, Copy, Debug)]
pub enum Migration {
    /// A script.
    Script(&'static str),
    /// A script, and then a function for what SQL cannot compute. Both run in the transaction of the migration.
    Code(&'static str, fn(&Transaction<'_>) -> rusqlite::Result<()>),
}

impl From<&'static str> for Migration {
    fn from(script: &'static str) -> Self {
        Self::Script(script)
    }
}

impl Migration {
    fn apply(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Script(script) => transaction.execute_batch(script),
            Self::Code(script, code) => {
                transaction.execute_batch(script)?;
                code(transaction)
            }
        }
    }
}

/// How a file is opened. The journal is always a write-ahead log: readers do not block writers.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// How long a connection waits for the lock of another connection or process.
    pub busy_timeout: Duration,
    /// When a commit reaches the disk.
    pub synchronous: Synchronous,
    /// How pages are laid out.
    pub layout: Layout,
    /// How many prepared statements a connection keeps.
    pub statement_cache: usize,
}

/// When a commit reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Before it returns.
    Full,
    /// Some time later. A commit is in the hands of the operating system when it returns: a killed process loses
    /// nothing, a power cut may lose the last moments but never corrupts the file.
    Normal,
}

/// How pages are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// SQLite's defaults, for small rows.
    SmallRows,
    /// Pages of 8 KiB, 16 MiB of page cache per connection, and free pages are returned to the file system by
    /// `PRAGMA incremental_vacuum`. On pages of 4 KiB, rows of one to two KiB would waste a quarter.
    LargeRows,
}

/// Why a file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory or the file cannot be created or written.
    #[error("{}: cannot be written: {source}", path.display())]
    Create {
        /// The directory or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A newer version of the program wrote the file. It is left unchanged.
    #[error(
        "{}: is of schema {found}, this version knows {known}; run the version that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version in the file.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// The file is no database, is damaged, or cannot be migrated. It is left unchanged.
    #[error("{}: is not usable: {source}; move it away to begin with a new one", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether a newer version of the program wrote the file.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }
}

/// Opens a file for reading and writing. The directory and the file are created if they are missing; the file with
/// mode 0600. `migrations[n]` brings schema n to n + 1.
///
/// # Errors
/// If the file cannot be created, belongs to a newer version of the program, or is no database.
pub fn open<M: Copy + Into<Migration>>(
    path: &Path,
    migrations: &[M],
    options: &OpenOptions,
) -> Result<Connection, OpenError> {
    let create_error = |path: &Path, source| OpenError::Create { path: path.into(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| create_error(directory, error))?;
    }
    let created = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    created.map_err(|error| create_error(path, error))?;
    let known = migrations.len();
    match open_and_migrate(path, migrations, options) {
        Ok((_, found)) if found > known => Err(OpenError::Newer { path: path.into(), found, known }),
        Ok((connection, _)) => Ok(connection),
        Err(source) => Err(OpenError::Unusable { path: path.into(), source }),
    }
}

/// The connection, and the version that the file had. A newer file is not changed.
fn open_and_migrate<M: Copy + Into<Migration>>(
    path: &Path,
    migrations: &[M],
    options: &OpenOptions,
) -> rusqlite::Result<(Connection, usize)> {
    let mut connection = Connection::open(path)?;
    configure(&connection, options)?;
    if options.layout == Layout::LargeRows {
        // Both take effect with the first page of a new file, and change nothing in an existing one.
        connection.pragma_update(None, "page_size", 8192)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The lock is taken before the version is read: of two processes that start at once, one migrates, and the other
    // waits and finds the current version.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: usize = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in migrations.iter().skip(found) {
        (*migration).into().apply(&transaction)?;
    }
    if found < migrations.len() {
        transaction.pragma_update(None, "user_version", migrations.len())?;
    }
    transaction.commit()?;
    Ok((connection, found))
}

/// Opens an existing file for reading.
///
/// # Errors
/// If the file is missing or is no database.
pub fn open_reader(path: &Path, options: &OpenOptions) -> rusqlite::Result<Connection> {
    // A connection that only reads a write-ahead log still has to write its index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection, options)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens a second connection to an existing file, for commits that must not wait: it returns an error at once if another
/// connection writes, and leaves checkpoints to the first connection.
///
/// # Errors
/// If the file is missing or is no database.
pub fn open_for_inline_commits(path: &Path, options: &OpenOptions) -> Result<Connection, OpenError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection, &OpenOptions { busy_timeout: Duration::ZERO, ..*options })?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(connection)
    };
    open().map_err(|source| OpenError::Unusable { path: path.into(), source })
}

/// Settings that belong to a connection and not to the file.
fn configure(connection: &Connection, options: &OpenOptions) -> rusqlite::Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(options.statement_cache);
    connection.pragma_update(None, "trusted_schema", false)?;
    if options.layout == Layout::LargeRows {
        connection.pragma_update(None, "cache_size", -16_384)?; // negative: KiB
    }
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)
}
