//! The part of a file that is here: `<file>.part`, hashed while it grows, renamed when it is proven whole.
//!
//! All disk work happens on blocking threads that own the part and, through it, the download's lock. So when
//! a download is dropped in the middle, what had arrived is written before anyone else may touch the file.

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

/// A growing file.
pub(crate) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    file: File,
    hasher: Hasher,
    /// The hasher before any byte.
    fresh: Hasher,
    len: u64,
    _lock: Arc<Lock>,
}

impl PartialFile {
    /// Opens what an earlier attempt left of `target`, or an empty part. Reads it all, for its checksum.
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
        let fresh = Hasher::new(announced.checksum.as_ref(), announced.size.unwrap_or_default());
        let open = || -> io::Result<(File, Hasher, u64)> {
            let mut file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
            let (mut hasher, mut len, mut buffer) = (fresh.clone(), 0, vec![0; 1 << 16]);
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
        Ok(Self { path, target, file, hasher, fresh, len, _lock: lock })
    }

    /// Bytes here.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksum of the bytes here.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        self.hasher.current()
    }

    /// Throws the bytes away.
    pub(crate) fn restart(&mut self) -> Result<(), SourceError> {
        let empty = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        empty.map_err(|error| io_error("empty", &self.path, &error))?;
        self.len = 0;
        self.hasher = self.fresh.clone();
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
                // A part of the chunk may have been written: the file is no longer what the hasher saw.
                let whole =
                    self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
                if let Err(error) = whole {
                    tracing::warn!(path = %self.path.display(), %error, "a partly written file could not be cut back");
                }
                return (self, Err(error));
            }
            self.hasher.update(chunk);
            self.len += chunk.len() as u64;
        }
        (self, Ok(()))
    }

    /// Makes the bytes survive a power cut and gives them their name.
    pub(crate) fn persist(self) -> Result<(), SourceError> {
        self.file.sync_all().map_err(|error| io_error("write", &self.path, &error))?;
        fs::rename(&self.path, &self.target).map_err(|error| io_error("create", &self.target, &error))
    }

    /// Removes the part.
    pub(crate) fn discard(self) -> Result<(), SourceError> {
        fs::remove_file(&self.path).map_err(|error| io_error("remove", &self.path, &error))
    }
}

/// Runs disk work away from the tasks. It begins at once and ends even if nobody waits.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, SourceError>> {
    let work = task::spawn_blocking(work);
    async {
        work.await.map_err(|_| SourceError::new(SourceErrorKind::Io, "the download was stopped; ask again"))
    }
}
