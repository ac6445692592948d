//! The ledger's SQLite file: its schema and how it is opened.

use std::{path::Path, time::Duration};

use embeddery_database::sqlite::{self, InlineCommits, Layout, OpenError, OpenOptions, Synchronous};
use rusqlite::Connection;

/// Script n brings schema n to n + 1. A released script never changes.
const MIGRATIONS: &[&str] = &[r"
CREATE TABLE usage (
    day TEXT NOT NULL,              -- of UTC, 2026-11-25
    user TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    texts INTEGER NOT NULL,
    cached_texts INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    billed_tokens INTEGER NOT NULL,
    cost_nanodollars INTEGER NOT NULL,
    PRIMARY KEY (user, day, provider, model)
) WITHOUT ROWID;
CREATE INDEX usage_by_day ON usage (day);
CREATE TABLE reservation (
    id INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    day TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    until INTEGER NOT NULL          -- seconds since 1970; after it the process of the request has ended
);
CREATE INDEX reservation_by_user ON reservation (user, day);
CREATE TABLE counter (
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (user, name)
) WITHOUT ROWID;
"];

const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(5),
    synchronous: Synchronous::Normal,
    layout: Layout::SmallRows,
    statement_cache: 16,
};

/// Opens the file for writing; creates and migrates it.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    sqlite::open(path, MIGRATIONS, &OPTIONS)
}

/// Opens a second connection to the file, for commits on the threads of requests.
pub(super) fn open_for_inline_commits(path: &Path) -> Result<InlineCommits, OpenError> {
    Ok(InlineCommits { connection: sqlite::open_for_inline_commits(path, &OPTIONS)? })
}

/// Opens the file for reading.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    sqlite::open_reader(path, &OPTIONS)
}
