//! How much of the disk models may take. Looked at before a download begins, when its size is known: a disk that is
//! full stops more than this program.

use std::path::Path;

use embeddery_core::{SourceError, SourceErrorKind::Io};

use crate::{hub::RemoteFile, models_dir::ModelsDir, sidecar::Sidecar};

/// Limits of downloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes of the disk that must stay free.
    pub min_free: u64,
    /// Bytes that all downloaded models may have together; `None`: as many as there are.
    pub most: Option<u64>,
}

impl DiskLimits {
    /// Refuses a download that would not fit. What an earlier attempt left in `staging` is not fetched again.
    pub(crate) fn check(
        self,
        base: &ModelsDir,
        staging: &Path,
        files: &[RemoteFile],
    ) -> Result<(), SourceError> {
        let here = |path: &Path| path.metadata().map_or(0, |file| file.len());
        let missing = |file: &RemoteFile| {
            let target = staging.join(&file.path);
            let mut part = target.clone().into_os_string();
            part.push(".part");
            let size = file.size.unwrap_or(0);
            (size, size.saturating_sub(here(&target).max(here(Path::new(&part)))))
        };
        let (whole, missing) =
            files.iter().map(missing).fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
        if let Some(most) = self.most {
            let others: u64 = base.list().iter().map(|name| downloaded(&base.join(name))).sum();
            if others + whole > most {
                return Err(refused(&format!(
                    "it has {}, the models downloaded to {} have {}, and together they may have {} (hub.max_bytes); \
                     delete one that is not needed, or allow more",
                    megabytes(whole),
                    base.root().display(),
                    megabytes(others),
                    megabytes(most)
                )));
            }
        }
        let Ok(disk) = rustix::fs::statvfs(staging) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if missing > 0 && free < missing.saturating_add(self.min_free) {
            return Err(refused(&format!(
                "{} are missing, the disk of {} has {} free, and {} must stay so (hub.min_free_bytes); free some \
                 space, or set EMBEDDINGS_MODEL_STORAGE_DIR to a larger disk",
                megabytes(missing),
                base.root().display(),
                megabytes(free),
                megabytes(self.min_free)
            )));
        }
        Ok(())
    }
}

/// Bytes of a model that was downloaded; those that somebody put here are not counted.
fn downloaded(directory: &Path) -> u64 {
    let sidecar = Sidecar::read(directory).ok().flatten();
    sidecar.map_or(0, |sidecar| sidecar.files.iter().map(|file| file.size).sum())
}

fn refused(why: &str) -> SourceError {
    SourceError::new(Io, format!("the model is not downloaded: {why}"))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
