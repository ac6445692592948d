//! The queue's file: its schema, and how it is opened.

use std::{path::Path, time::Duration};

use embeddery_database::sqlite::{self, Layout, OpenOptions, Synchronous};
use rusqlite::Connection;

use crate::QueueError;

/// Step n brings schema n to n + 1. A released step never changes.
const MIGRATIONS: &[&str] = &[
    r"
-- Tasks that are not dead.
CREATE TABLE task (
    seq INTEGER PRIMARY KEY,            -- the order of arrival, which a task keeps
    version INTEGER NOT NULL,           -- of the message
    job BLOB NOT NULL,
    item INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    stage INTEGER NOT NULL,
    rank INTEGER NOT NULL,              -- of the priority; 0 goes first
    bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    enqueued_at_ms INTEGER NOT NULL,
    traceparent TEXT,
    place INTEGER NOT NULL,             -- the state: `TaskState`
    since_ms INTEGER NOT NULL,          -- when it entered this state
    due_ms INTEGER,                     -- when a delayed task is due; when a lease expires
    consumer TEXT,
    token INTEGER,
    cancelled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX task_by_id ON task (job, item);
CREATE INDEX task_by_tenant ON task (tenant);
CREATE INDEX task_in_line ON task (stage, place, tenant, rank, seq);
CREATE INDEX task_due ON task (stage, place, due_ms) WHERE due_ms IS NOT NULL;
-- The tasks of a tenant at a stage, counted. The tenant with the lowest tag is next; work raises its tag.
CREATE TABLE lane (
    stage INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    tag INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0,
    items INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stage, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_by_tag ON lane (stage, tag, tenant) WHERE waiting > 0;
-- The highest tag that was reached, and the mode of the stage.
CREATE TABLE stage (
    stage INTEGER PRIMARY KEY,
    tag INTEGER NOT NULL DEFAULT 0,
    flow INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO stage (stage) VALUES (0), (1), (2);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stage INTEGER NOT NULL,
    job BLOB NOT NULL,
    item INTEGER NOT NULL,
    task TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX dead_by_id ON dead (job, item);
CREATE INDEX dead_by_stage ON dead (stage, id);
CREATE TABLE worker (
    consumer TEXT PRIMARY KEY,
    report TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- One row: the last token, and the worker that gets no task until it is idle, because a task must run alone.
CREATE TABLE single (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    token INTEGER NOT NULL DEFAULT 0,
    clearing TEXT,
    clearing_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO single (id) VALUES (0);
",
    r"
-- The operator's remark on a dead letter.
ALTER TABLE dead ADD COLUMN remark TEXT;
",
    r"
-- The cost of a task's turn, until the turn has a result.
ALTER TABLE task ADD COLUMN paid INTEGER NOT NULL DEFAULT 0;
-- Until then a worker becomes idle for a task that must run alone.
ALTER TABLE stage ADD COLUMN clearing_until_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE single DROP COLUMN clearing;
ALTER TABLE single DROP COLUMN clearing_until_ms;
-- When a worker was last active.
ALTER TABLE single ADD COLUMN heard_ms INTEGER NOT NULL DEFAULT 0;
",
    r"
-- The worker that becomes idle for a task that must run alone.
ALTER TABLE stage ADD COLUMN clearing TEXT;
",
];

/// A power cut may lose the last commits: what is missing is enqueued again, and what is done twice leaves the same
/// result.
const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(10),
    synchronous: Synchronous::Normal,
    layout: Layout::SmallRows,
    statement_cache: 64,
};

/// Opens the file; creates and migrates it.
pub(super) fn open(path: &Path) -> Result<Connection, QueueError> {
    sqlite::open(path, MIGRATIONS, &OPTIONS).map_err(|error| match error.is_newer() {
        true => QueueError::TooNew(error.to_string()),
        false => QueueError::Unavailable(format!("{error}; unfinished documents are enqueued again")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_is_refused_and_a_foreign_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(&refused, QueueError::TooNew(text) if text.contains("schema 9")), "{refused}");
        let other = dir.path().join("other.db");
        std::fs::write(&other, "this is no database, and long enough to be looked at as one".repeat(40))
            .unwrap();
        assert!(open(&other).unwrap_err().to_string().contains("move it away"));
        assert!(std::fs::read_to_string(&other).unwrap().starts_with("this is"));
    }
}
