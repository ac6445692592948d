//! The jobs' file: its schema, and how it is opened.

use std::{path::Path, time::Duration};

use embeddery_database::sqlite::{self, Layout, OpenOptions, ReaderPool, Synchronous};
use rusqlite::Connection;

use crate::JobError;

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

const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(10),
    synchronous: Synchronous::Normal,
    layout: Layout::LargeRows,
    statement_cache: 128,
};

/// Opens the file for writing; creates and migrates it.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    let connection = sqlite::open(path, MIGRATIONS, &OPTIONS).map_err(|error| error.to_string())?;
    let limited = connection.pragma_update(None, "journal_size_limit", 64 << 20);
    limited.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(connection)
}

/// Connections that read the file.
pub(super) fn readers(path: &Path) -> ReaderPool {
    ReaderPool::new(path, OPTIONS)
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
