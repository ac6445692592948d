//! A file that may change while the program runs: a revocation list, a set of public keys. Looked at on every
//! use (one `stat`), read again when it is another; so a revocation holds from the next request on.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// What a file says, as of now.
pub(crate) struct ReloadingFile<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    last: RwLock<CachedContent<T>>,
}

struct CachedContent<T> {
    seen: Option<FileStamp>,
    value: Arc<T>,
}

/// Which version of a file: a rename over it changes the inode, an edit the time or the length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self {
            inode: data.ino(),
            length: data.len(),
            seconds: data.mtime(),
            nanoseconds: data.mtime_nsec(),
        })
    }
}

impl<T> ReloadingFile<T> {
    /// Reads the file for the first time.
    pub(crate) fn open(path: PathBuf, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let seen = FileStamp::of(&path);
        let value = Arc::new(read(&path, parse)?);
        Ok(Self { path, parse, last: RwLock::new(CachedContent { seen, value }) })
    }

    /// What the file says. When it has become unreadable, what it said last: a half-written list must neither
    /// let everybody in nor shut everybody out.
    pub(crate) fn get(&self) -> Arc<T> {
        let now = FileStamp::of(&self.path);
        {
            let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
            if last.seen == now {
                return Arc::clone(&last.value);
            }
        }
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        if last.seen != now {
            last.seen = now;
            match read(&self.path, self.parse) {
                Ok(value) => {
                    tracing::info!(file = %self.path.display(), "read again, because it has changed");
                    last.value = Arc::new(value);
                }
                Err(error) => tracing::error!(%error, "what the file said before still holds"),
            }
        }
        Arc::clone(&last.value)
    }
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "not a number".into())
    }

    #[test]
    fn a_change_holds_at_once_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        fs::write(&path, "1").unwrap();
        let watched = ReloadingFile::open(path.clone(), number).unwrap();
        assert_eq!(*watched.get(), 1);
        fs::write(&path, "22").unwrap();
        assert_eq!(*watched.get(), 22);
        fs::write(&path, "oops").unwrap();
        assert_eq!(*watched.get(), 22);
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(), 22);
        fs::write(&path, "333").unwrap();
        assert_eq!(*watched.get(), 333);
    }
}
