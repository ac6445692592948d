//! Files of this crate, which several processes may share: made, opened, brought to the present schema.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};

use rusqlite::{Connection, TransactionBehavior};

/// Why a file cannot be used, for an operator.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// It is of a newer version of the program.
    pub(crate) newer: bool,
    pub(crate) message: String,
}

/// Opens a file for writing; makes it and its directory when they are not there. Step n of the `migrations` brings
/// schema n to n + 1; `settings` come first. A file that is no database, or of a newer version, stays as it is.
pub(crate) fn open(
    path: &Path,
    migrations: &[&str],
    settings: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Connection, Unusable> {
    let unusable =
        |problem: String| Unusable { newer: false, message: format!("{}: {problem}", path.display()) };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| unusable(format!("cannot be made: {error}")))?;
    }
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map_err(|error| unusable(format!("cannot be written: {error}")))?;
    let known = migrations.len();
    let migrated = || {
        let mut file = Connection::open(path)?;
        settings(&file)?;
        // Two processes that start at once: one migrates, the other waits and finds it done.
        let transaction = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: usize = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        for step in migrations.iter().skip(found) {
            transaction.execute_batch(step)?;
        }
        if found < known {
            transaction.pragma_update(None, "user_version", known)?;
        }
        transaction.commit()?;
        Ok((file, found))
    };
    match migrated() {
        Ok((_, found)) if found > known => {
            let newer = unusable(format!(
                "is of schema {found}, this version knows {known}; run the version that wrote it, or a newer one"
            ));
            Err(Unusable { newer: true, ..newer })
        }
        Ok((file, _)) => Ok(file),
        Err(error) => {
            let error: rusqlite::Error = error;
            Err(unusable(format!("is not usable: {error}; move it away to begin with a new one")))
        }
    }
}
