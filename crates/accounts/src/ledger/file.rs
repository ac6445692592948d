//! The SQLite file: how it is opened, and how it comes to the present schema.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

/// Step n brings schema n to n + 1. A released step never changes.
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
    until INTEGER NOT NULL          -- seconds since 1970; later the request is dead, whoever held it
);
CREATE INDEX reservation_by_user ON reservation (user, day);
CREATE TABLE counter (
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (user, name)
) WITHOUT ROWID;
"];

/// Opens the file for writing; makes and migrates it.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    migrated(path, MIGRATIONS).map_err(|error| format!("{}: {error}", path.display()))
}

/// A second connection to a file that is open, for commits that may not wait: it gives up at once when another
/// writes, and leaves it to the first to move the log into the file.
pub(super) fn open_without_waiting(path: &Path) -> Result<Connection, String> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| format!("{}: {error}", path.display()))
}

/// Opens the file for reading.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn migrated(path: &Path, migrations: &[&str]) -> Result<Connection, String> {
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map_err(|error| format!("cannot be written: {error}"))?;
    prepare(path, migrations).map_err(|error| match error {
        Problem::Sqlite(error) => format!("is not usable: {error}; move it away to begin with a new one"),
        Problem::Newer(found) => format!(
            "is of schema {found}, this version knows {}; run the version that wrote it, or a newer one",
            migrations.len()
        ),
    })
}

enum Problem {
    Sqlite(rusqlite::Error),
    Newer(u32),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(path: &Path, migrations: &[&str]) -> Result<Connection, Problem> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // Readers and writers of several processes side by side; a commit is in the system's hands when it returns,
    // so that a killed process loses nothing. A power cut may lose the last moments, never the file.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Two processes that start at once: one migrates, the other waits and finds it done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = migrations.len() as u32;
    if found > known {
        return Err(Problem::Newer(found));
    }
    for step in migrations.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_migrates_with_what_it_holds_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usage.sqlite3");
        let old = open(&path).unwrap();
        old.execute("INSERT INTO counter VALUES ('ann', 'jobs', 3)", []).unwrap();
        drop(old);
        let next = [MIGRATIONS[0], "ALTER TABLE counter ADD COLUMN note TEXT NOT NULL DEFAULT 'none'"];
        let new = migrated(&path, &next).unwrap();
        let row: (i64, String) = new
            .query_row("SELECT value, note FROM counter", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(row, (3, "none".into()));
        let refused = open(&path).unwrap_err();
        assert!(refused.contains("is of schema 2, this version knows 1"), "{refused}");
    }

    #[test]
    fn a_file_that_is_none_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usage.sqlite3");
        std::fs::write(&path, "this is no database, and long enough to be looked at as one".repeat(40))
            .unwrap();
        assert!(open(&path).unwrap_err().contains("move it away"));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is"));
    }
}
