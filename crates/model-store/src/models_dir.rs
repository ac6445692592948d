//! The base directory: models as plain files in `<base>/<org>/<name>/`.
//!
//! A downloaded directory has a sidecar (`.embeddery.json`) with its revision and checksums. A download of another
//! revision may replace it. A directory without a sidecar belongs to the user and is never changed. Downloads are
//! written to the staging area `<base>/.incoming/` and renamed to their final path when they are complete.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use embeddery_core::{SourceError, SourceErrorKind::Io};

use crate::{
    lock::Lock,
    model_files,
    model_name::{HubName, Name, Revision},
    sidecar::Sidecar,
};

/// A directory of models.
#[derive(Clone, Debug)]
pub(crate) struct ModelsDir {
    root: PathBuf,
}

impl ModelsDir {
    /// The directory need not exist. A file at the path is an error.
    pub(crate) fn new(root: PathBuf) -> Result<Self, SourceError> {
        if root.exists() && !root.is_dir() {
            return Err(io_error("use", &root, &ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a listed model.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory of a model, whether it exists or not.
    pub(crate) fn directory(&self, name: &HubName) -> PathBuf {
        self.root.join(name.as_path())
    }

    /// The model's directory if it is complete and has the requested revision. Any revision matches if none is requested.
    pub(crate) fn find(
        &self,
        name: &HubName,
        revision: Option<&Revision>,
    ) -> Result<Option<PathBuf>, SourceError> {
        let directory = self.directory(name);
        if !directory.join(model_files::CONFIG).is_file() {
            return Ok(None);
        }
        let Some(sidecar) = Sidecar::read(&directory)? else { return Ok(Some(directory)) };
        let matches_revision = revision.is_none_or(|requested| {
            [&sidecar.revision, &sidecar.commit].iter().any(|known| *known == requested.as_str())
        });
        let is_complete = sidecar.files.iter().all(|file| directory.join(&file.path).is_file());
        Ok((matches_revision && is_complete).then_some(directory))
    }

    /// Names of all complete models.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut names = Vec::new();
        for first in subdirectories(&self.root).filter(|first| first != crate::ONNX_DIRECTORY) {
            if self.root.join(&first).join(model_files::CONFIG).is_file() {
                names.push(first);
            } else {
                let models = subdirectories(&self.root.join(&first));
                names.extend(models.map(|second| format!("{first}/{second}")));
            }
        }
        // Hidden directories such as `.incoming` are not valid names.
        names.retain(|name| match Name::parse(name) {
            Ok(Name::Hub(name)) => matches!(self.find(&name, None), Ok(Some(_))),
            _ => false,
        });
        names
    }

    /// Waits for the lock of a model's download. Creates the staging area.
    pub(crate) async fn lock(&self, name: &HubName) -> Result<Lock, SourceError> {
        let path = self.incoming(name, "lock");
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|error| io_error("create", parent, &error))?;
        Lock::acquire(&path).await
    }

    /// The staging directory of a commit, empty or with files of an earlier attempt. Staging directories of the model's
    /// other commits are removed.
    ///
    /// # Errors
    /// The model's directory holds files of the user.
    pub(crate) fn stage(&self, name: &HubName, commit: &str) -> Result<PathBuf, SourceError> {
        let target = self.directory(name);
        if target.exists() && Sidecar::read(&target)?.is_none() && !is_empty_directory(&target) {
            return Err(SourceError::new(
                Io,
                format!(
                    "{} is in the way: it is not a model directory (no config.json) and was not downloaded by Embeddery; \
                     complete it, or move it away",
                    target.display()
                ),
            ));
        }
        let staging = self.incoming(name, commit);
        let prefix = self.incoming(name, "");
        for sibling in fs::read_dir(staging.parent().unwrap_or(&self.root)).into_iter().flatten().flatten() {
            let path = sibling.path();
            let is_of_model =
                path.as_os_str().as_encoded_bytes().starts_with(prefix.as_os_str().as_encoded_bytes());
            if is_of_model && path.is_dir() && path != staging {
                fs::remove_dir_all(&path).map_err(|error| io_error("remove", &path, &error))?;
            }
        }
        fs::create_dir_all(&staging).map_err(|error| io_error("create", &staging, &error))?;
        Ok(staging)
    }

    /// Renames a complete staging directory to the model's directory. A downloaded directory of another revision is replaced.
    pub(crate) fn publish(
        &self,
        name: &HubName,
        staging: &Path,
        sidecar: &Sidecar,
    ) -> Result<PathBuf, SourceError> {
        sidecar.write(staging)?;
        for directory in sidecar.files.iter().filter_map(|file| Path::new(&file.path).parent()) {
            sync_directory(&staging.join(directory))?;
        }
        sync_directory(staging)?;
        let target = self.directory(name);
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|error| io_error("create", parent, &error))?;
        let replaced = self.incoming(name, "replaced");
        if Sidecar::read(&target)?.is_some() {
            fs::rename(&target, &replaced).map_err(|error| io_error("move", &target, &error))?;
        }
        fs::rename(staging, &target).map_err(|error| io_error("create", &target, &error))?;
        sync_directory(parent)?;
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(|error| io_error("remove", &replaced, &error))?;
        }
        Ok(target)
    }

    /// `<base>/.incoming/<org>/<name>@<suffix>`. Names have no '@', so the paths of two models never collide.
    fn incoming(&self, name: &HubName, suffix: &str) -> PathBuf {
        let mut path = self.root.join(".incoming").join(name.as_path()).into_os_string();
        path.push("@");
        path.push(suffix);
        path.into()
    }
}

/// An error of the file system, with the path and advice.
pub(crate) fn io_error(action: &str, path: &Path, error: &io::Error) -> SourceError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            "; make the directory writable or set EMBEDDINGS_MODEL_STORAGE_DIR to one that is"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space or set EMBEDDINGS_MODEL_STORAGE_DIR to a larger disk (the downloaded bytes are kept)"
        }
        _ => "",
    };
    SourceError::new(Io, format!("cannot {action} {}: {error}{advice}", path.display()))
}

/// Writes a directory to disk. A renamed or created entry survives a power failure only after that.
fn sync_directory(path: &Path) -> Result<(), SourceError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("write", path, &error))
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Names of the subdirectories.
fn subdirectories(path: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok())
}
