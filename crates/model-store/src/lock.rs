//! The lock that allows one download of a model at a time, across tasks and processes of this machine.
//!
//! It is an advisory lock on a file, which the operating system releases even if the process is killed. The lock
//! belongs to the open file, so it also excludes two tasks of one process. A waiting task polls instead of blocking a
//! thread, because a future can be dropped and a blocked thread cannot.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use embeddery_core::{Backoff, SourceError};

use crate::models_dir::io_error;

/// A held lock; released on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock. The lock file is never removed: a removed file would let two tasks lock two different files.
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
