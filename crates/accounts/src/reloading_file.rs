//! A file that is reloaded when it changes: a revocation list or a set of public keys. Each use checks the file with one
//! `stat`, so that a revocation takes effect with the next request.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use embeddery_core::without_byte_order_mark;

/// The parsed content of a file, reloaded when the file changes.
pub(crate) struct ReloadingFile<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    cached: RwLock<CachedContent<T>>,
}

struct CachedContent<T> {
    stamp: Option<FileStamp>,
    value: Arc<T>,
}

/// Identifies a version of a file: replacing the file changes the inode, editing it changes the time or the length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl FileStamp {
    fn read(path: &Path) -> Option<Self> {
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
    /// Opens and parses the file.
    pub(crate) fn open(path: PathBuf, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let stamp = FileStamp::read(&path);
        let value = Arc::new(read(&path, parse)?);
        Ok(Self { path, parse, cached: RwLock::new(CachedContent { stamp, value }) })
    }

    /// The current content. If the file has become unreadable or invalid, the last valid content: a half-written list
    /// must neither admit nor reject all callers.
    pub(crate) fn get(&self) -> Arc<T> {
        let stamp = FileStamp::read(&self.path);
        {
            let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
            if cached.stamp == stamp {
                return Arc::clone(&cached.value);
            }
        }
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        if cached.stamp != stamp {
            cached.stamp = stamp;
            match read(&self.path, self.parse) {
                Ok(value) => {
                    tracing::info!(file = %self.path.display(), "file reloaded after a change");
                    cached.value = Arc::new(value);
                }
                Err(error) => {
                    tracing::error!(%error, "file could not be reloaded; its last content stays in use");
                }
            }
        }
        Arc::clone(&cached.value)
    }
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: cannot be read: {error}", path.display());
    let bytes = fs::read(path).map_err(|error| unreadable(&error))?;
    let text = str::from_utf8(without_byte_order_mark(&bytes)).map_err(|error| unreadable(&error))?;
    parse(text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "not a number".into())
    }

    #[test]
    fn a_change_is_seen_at_once_and_an_invalid_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        fs::write(&path, "1").unwrap();
        let file = ReloadingFile::open(path.clone(), number).unwrap();
        assert_eq!(*file.get(), 1);
        fs::write(&path, "\u{feff}22").unwrap();
        assert_eq!(*file.get(), 22);
        fs::write(&path, "oops").unwrap();
        assert_eq!(*file.get(), 22);
        fs::remove_file(&path).unwrap();
        assert_eq!(*file.get(), 22);
        fs::write(&path, "333").unwrap();
        assert_eq!(*file.get(), 333);
    }
}
