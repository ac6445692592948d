//! One download of a model at a time, over all processes of this machine and all tasks of this one.
//!
//! An advisory lock on a file, which the system releases however its holder ends. It belongs to the open
//! file, so two tasks of one process exclude each other too. Whoever does not get it asks again every
//! moment instead of blocking a thread: a waiting future can be dropped, a blocked thread cannot.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use embeddery_core::{Backoff, SourceError};

use crate::base::io_error;

/// The right to download a model; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the right. The file is created and stays: removing it would let two holders lock two files.
    pub(crate) async fn acquire(path: &Path) -> Result<Self, SourceError> {
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = open().map_err(|error| io_error("open", path, &error))?;
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        let mut attempt = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(io_error("lock", path, &error)),
            }
            tokio::time::sleep(backoff.ceiling(attempt)).await;
            attempt += 1;
        }
    }
}
