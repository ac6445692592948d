//! A partly downloaded file, `<file>.part`. It is hashed while it grows, and renamed when it is complete and verified.
//!
//! All disk access happens on blocking threads that own the [`PartialFile`] and, through it, the download's lock. If a
//! download is cancelled, the thread writes the received bytes before the lock is released to the next download.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::Arc,
};

use embeddery_core::{SourceError, SourceErrorKind};
use tokio::{sync::mpsc, task};

use crate::{
    checksum::{Checksum, Hasher},
    hub::RemoteFile,
    lock::Lock,
    models_dir::io_error,
};

/// A partly downloaded file.
pub(crate) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    file: File,
    hasher: Hasher,
    /// The hasher before the first byte.
    initial_hasher: Hasher,
    len: u64,
    _lock: Arc<Lock>,
}

impl PartialFile {
    /// Opens the part that an earlier attempt left, or creates an empty one. Reads the whole part to hash it.
    pub(crate) fn open(
        target: PathBuf,
        announced: &RemoteFile,
        lock: Arc<Lock>,
    ) -> Result<Self, SourceError> {
        let mut path = target.clone().into_os_string();
        path.push(".part");
        let path = PathBuf::from(path);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).map_err(|error| io_error("create", parent, &error))?;
        let initial_hasher = Hasher::new(announced.checksum.as_ref(), announced.size.unwrap_or_default());
        let open = || -> io::Result<(File, Hasher, u64)> {
            let mut file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
            let (mut hasher, mut len, mut buffer) = (initial_hasher.clone(), 0, vec![0; 1 << 16]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok((file, hasher, len)),
                    read => {
                        hasher.update(&buffer[..read]);
                        len += read as u64;
                    }
                }
            }
        };
        let (file, hasher, len) = open().map_err(|error| io_error("open", &path, &error))?;
        Ok(Self { path, target, file, hasher, initial_hasher, len, _lock: lock })
    }

    /// The number of bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksum of the bytes so far.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        self.hasher.current()
    }

    /// Discards all bytes.
    pub(crate) fn restart(&mut self) -> Result<(), SourceError> {
        let empty = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        empty.map_err(|error| io_error("empty", &self.path, &error))?;
        self.len = 0;
        self.hasher = self.initial_hasher.clone();
        Ok(())
    }

    /// Appends all chunks until the sender is dropped.
    pub(crate) fn append_all(
        mut self,
        mut chunks: mpsc::Receiver<impl AsRef<[u8]>>,
    ) -> (Self, Result<(), SourceError>) {
        while let Some(chunk) = chunks.blocking_recv() {
            let chunk = chunk.as_ref();
            if let Err(error) = self.file.write_all(chunk) {
                let error = io_error("write", &self.path, &error);
                // A part of the chunk may be written. The file is truncated to the bytes that were hashed.
                let truncated =
                    self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
                if let Err(error) = truncated {
                    tracing::warn!(path = %self.path.display(), %error, "a partly written file could not be truncated");
                }
                return (self, Err(error));
            }
            self.hasher.update(chunk);
            self.len += chunk.len() as u64;
        }
        (self, Ok(()))
    }

    /// Syncs the file to disk and renames it to its final path.
    pub(crate) fn persist(self) -> Result<(), SourceError> {
        self.file.sync_all().map_err(|error| io_error("write", &self.path, &error))?;
        fs::rename(&self.path, &self.target).map_err(|error| io_error("create", &self.target, &error))
    }

    /// Removes the file.
    pub(crate) fn discard(self) -> Result<(), SourceError> {
        fs::remove_file(&self.path).map_err(|error| io_error("remove", &self.path, &error))
    }
}

/// Runs disk access on a blocking thread. The work starts at once and finishes even if the future is dropped.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, SourceError>> {
    let work = task::spawn_blocking(work);
    async { work.await.map_err(|_| SourceError::new(SourceErrorKind::Io, "the download was stopped; retry")) }
}
