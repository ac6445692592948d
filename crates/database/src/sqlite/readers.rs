//! Connections that only read, kept between reads.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, Transaction};

use super::{OpenOptions, open_reader};

/// Connections to one file that only read. It holds as many as were ever used at the same time; the caller limits that.
pub struct ReaderPool {
    path: PathBuf,
    options: OpenOptions,
    idle: Mutex<Vec<Connection>>,
}

impl ReaderPool {
    /// A pool without a connection. The first read opens one.
    pub fn new(path: &Path, options: OpenOptions) -> Self {
        Self { path: path.into(), options, idle: Mutex::default() }
    }

    /// Runs `work` in a transaction. All that it reads is of the same moment, whatever others write.
    ///
    /// # Errors
    /// If the file cannot be opened, or `work` fails.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path, &self.options)?,
        };
        let result = connection.transaction().map_err(E::from).and_then(|transaction| work(&transaction));
        self.lock().push(connection);
        result
    }

    /// The idle connections. They roll back by themselves, so a panic of a holder leaves them usable.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
