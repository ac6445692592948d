//! Limits on the disk space of models. They are checked before a download starts, when its size is known, because a full
//! disk stops other programs, too.

use std::path::Path;

use embeddery_core::{SourceError, SourceErrorKind::Io, megabytes};

use crate::{hub::RemoteFile, models_dir::ModelsDir, sidecar::Sidecar};

/// Limits on the disk space of downloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes of the disk that must stay free.
    pub min_free_bytes: u64,
    /// Maximum bytes of all downloaded models together; `None` is no limit.
    pub max_bytes: Option<u64>,
}

impl DiskLimits {
    /// Refuses a download that would not fit. Bytes that an earlier attempt left in `staging` are not downloaded again.
    pub(crate) fn check(
        self,
        base: &ModelsDir,
        staging: &Path,
        files: &[RemoteFile],
    ) -> Result<(), SourceError> {
        let size_on_disk = |path: &Path| path.metadata().map_or(0, |file| file.len());
        let total_and_missing = |file: &RemoteFile| {
            let target = staging.join(&file.path);
            let mut part = target.clone().into_os_string();
            part.push(".part");
            let size = file.size.unwrap_or(0);
            (size, size.saturating_sub(size_on_disk(&target).max(size_on_disk(Path::new(&part)))))
        };
        let (total, missing) =
            files.iter().map(total_and_missing).fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
        if let Some(max_bytes) = self.max_bytes {
            let others: u64 = base.list().iter().map(|name| downloaded_bytes(&base.join(name))).sum();
            if others + total > max_bytes {
                return Err(refused(&format!(
                    "it has {}, the models downloaded to {} have {}, and the limit for all of them is {} \
                     (hub.max_bytes); delete one that is not needed, or raise the limit",
                    megabytes(total),
                    base.root().display(),
                    megabytes(others),
                    megabytes(max_bytes)
                )));
            }
        }
        let Ok(disk) = rustix::fs::statvfs(staging) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if missing > 0 && free < missing.saturating_add(self.min_free_bytes) {
            return Err(refused(&format!(
                "it needs another {}, the disk of {} has {} free, and {} must stay free (hub.min_free_bytes); free some \
                 space, or set EMBEDDINGS_MODEL_STORAGE_DIR to a larger disk",
                megabytes(missing),
                base.root().display(),
                megabytes(free),
                megabytes(self.min_free_bytes)
            )));
        }
        Ok(())
    }
}

/// Bytes of a downloaded model; 0 for a model that the user put into the directory.
fn downloaded_bytes(directory: &Path) -> u64 {
    let sidecar = Sidecar::read(directory).ok().flatten();
    sidecar.map_or(0, |sidecar| sidecar.files.iter().map(|file| file.size).sum())
}

fn refused(reason: &str) -> SourceError {
    SourceError::new(Io, format!("the model is not downloaded: {reason}"))
}
