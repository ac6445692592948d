//! The jobs' file: its schema, and how it is opened.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction};

use crate::{JobError, file};

/// Step n brings schema n to n + 1. A released step never changes.
///
/// A job has a number, which is the upper half of its documents' keys: `key = number << 32 | item`. A document's state
/// (`document`), which every step reads, is apart from its text and results (`content`), which are long and are removed
/// when they are no longer needed.
const MIGRATIONS: &[&str] = &[
    r"
CREATE TABLE job (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,            -- a UUID of version 7: a newer job has a higher one
    tenant TEXT NOT NULL,
    idempotency_key TEXT,
    body_hash BLOB,                     -- known when the job starts
    max_unfinished INTEGER,
    collection TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    dimensions INTEGER,
    method TEXT NOT NULL, size INTEGER NOT NULL, overlap INTEGER NOT NULL, unit TEXT NOT NULL,
    priority INTEGER NOT NULL,
    traceparent TEXT,
    status INTEGER NOT NULL DEFAULT -1, -- -1: open, and invisible
    skipped INTEGER NOT NULL DEFAULT 0, -- by an operator
    -- Documents by state: d0 to d7 are the numbers of `codec::state_number`.
    d0 INTEGER NOT NULL DEFAULT 0, d1 INTEGER NOT NULL DEFAULT 0, d2 INTEGER NOT NULL DEFAULT 0,
    d3 INTEGER NOT NULL DEFAULT 0, d4 INTEGER NOT NULL DEFAULT 0, d5 INTEGER NOT NULL DEFAULT 0,
    d6 INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0, stored_chunks INTEGER NOT NULL DEFAULT 0,
    submitted_at_ms INTEGER NOT NULL,   -- while it is open: when documents were last added
    started_at_ms INTEGER,
    ended_at_ms INTEGER,
    -- Documents that ended in the minute `minute`, and in the one before it.
    minute INTEGER NOT NULL DEFAULT 0, this_minute INTEGER NOT NULL DEFAULT 0, last_minute INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX job_by_key ON job (tenant, idempotency_key) WHERE status >= 0 AND idempotency_key IS NOT NULL;
CREATE INDEX job_by_key_alone ON job (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_by_tenant ON job (tenant, id);
CREATE INDEX job_unfinished ON job (id) WHERE status IN (0, 1);
CREATE INDEX job_ended ON job (ended_at_ms) WHERE ended_at_ms IS NOT NULL;
CREATE TABLE document (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL,             -- of text
    chunks INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    failed_at INTEGER,                  -- the stage at which it failed
    code TEXT, message TEXT,
    touched_at_ms INTEGER NOT NULL
);
CREATE INDEX document_unfinished ON document (key) WHERE state < 3;
CREATE INDEX document_failed ON document (key) WHERE state = 4;
CREATE TABLE content (
    key INTEGER PRIMARY KEY,
    text BLOB NOT NULL,
    packed INTEGER NOT NULL,            -- 1: compressed with zstd
    metadata TEXT NOT NULL,
    content_type TEXT,
    spans TEXT,
    vectors_head TEXT,
    vectors BLOB
);
",
    r"
ALTER TABLE job ADD COLUMN d7 INTEGER NOT NULL DEFAULT 0;
-- When it was set back to be tried again, or when the task that failed entered the queue. Earlier tasks are obsolete.
ALTER TABLE document ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE document ADD COLUMN again_at_ms INTEGER;    -- when a delayed document is tried again
CREATE TABLE claim (what TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
",
];

/// How long a writer waits for one of another process.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the file for writing; makes and migrates it.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    let opened = file::open(path, MIGRATIONS, |connection| {
        settings(connection)?;
        // Both hold from the file's first page on; on a file that has them they change nothing.
        connection.pragma_update(None, "page_size", 8192)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)
    });
    opened.map_err(|unusable| unusable.message)
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "cache_size", -16_384)?; // KiB, a connection
    connection.pragma_update(None, "trusted_schema", false)
}

/// Connections that read.
pub(super) struct Readers {
    path: PathBuf,
    /// Those that rest.
    resting: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, resting: Mutex::default() }
    }

    /// Reads; all of it sees one moment.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        let resting = lock(&self.resting).pop();
        let mut reader = match resting {
            Some(reader) => reader,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let reader = Connection::open_with_flags(&self.path, flags)?;
                settings(&reader)?;
                reader.pragma_update(None, "query_only", true)?;
                reader
            }
        };
        let done = reader.transaction().map_err(JobError::from).and_then(|tx| work(&tx));
        lock(&self.resting).push(reader);
        done
    }
}

/// A lock whose holder panicked still guards connections that roll back by themselves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that the disk of the file has at least `min_free_bytes` free.
pub(super) fn check_space(path: &Path, min_free_bytes: u64) -> Result<(), JobError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(dir)
        .map_err(|error| JobError::Unavailable(format!("the disk of the jobs is out of reach: {error}")))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= min_free_bytes {
        return Ok(());
    }
    Err(JobError::Full(format!(
        "the disk of the jobs has {} MiB free, and {} MiB are kept in reserve; free space on it",
        free >> 20,
        min_free_bytes >> 20
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_is_refused_and_a_foreign_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state").join("jobs.db");
        let file = open(&path).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        drop(file);
        let refused = open(&path).unwrap_err();
        assert!(refused.contains("is of schema 99, this version knows"), "{refused}");

        let other = dir.path().join("other.db");
        std::fs::write(&other, "this is no database, and long enough to be looked at as one".repeat(40))
            .unwrap();
        assert!(open(&other).unwrap_err().contains("move it away"));
        assert!(std::fs::read_to_string(&other).unwrap().starts_with("this is"));
    }
}
