//! The base directory: `<base>/<org>/<name>/` with plain files, used as found.
//!
//! A directory that we downloaded carries a sidecar (`.embeddery.json`) with its revision and checksums.
//! Such a directory may be replaced by a download of another revision; a directory without a sidecar is its
//! owner's and is never touched. Downloads grow in `<base>/.incoming/` and are renamed into place whole.

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

/// The base directory.
#[derive(Clone, Debug)]
pub(crate) struct ModelsDir {
    root: PathBuf,
}

impl ModelsDir {
    /// The directory need not exist; a file in its place is an error.
    pub(crate) fn new(root: PathBuf) -> Result<Self, SourceError> {
        if root.exists() && !root.is_dir() {
            return Err(io_error("use", &root, &ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a listed model lies.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a model lies, or would.
    pub(crate) fn directory(&self, name: &HubName) -> PathBuf {
        self.root.join(name.as_path())
    }

    /// The model's directory if it is here in the revision asked for (any, when none is asked for).
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
        let as_asked = revision.is_none_or(|asked| {
            [&sidecar.revision, &sidecar.commit].iter().any(|known| *known == asked.as_str())
        });
        let whole = sidecar.files.iter().all(|file| directory.join(&file.path).is_file());
        Ok((as_asked && whole).then_some(directory))
    }

    /// Names of the models here.
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
        // Hidden directories, `.incoming` among them, do not pass as names.
        names.retain(|name| match Name::parse(name) {
            Ok(Name::Hub(name)) => matches!(self.find(&name, None), Ok(Some(_))),
            _ => false,
        });
        names
    }

    /// Waits for the right to download a model. Makes the directories that a download needs.
    pub(crate) async fn lock(&self, name: &HubName) -> Result<Lock, SourceError> {
        let path = self.incoming(name, "lock");
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|error| io_error("create", parent, &error))?;
        Lock::acquire(&path).await
    }

    /// An empty or resumed staging directory for a commit. Those of other commits are removed: what they
    /// hold is of no use any more. Refuses when the model's place is taken by files that are not ours.
    pub(crate) fn stage(&self, name: &HubName, commit: &str) -> Result<PathBuf, SourceError> {
        let target = self.directory(name);
        if target.exists() && Sidecar::read(&target)?.is_none() && !is_empty_directory(&target) {
            return Err(SourceError::new(
                Io,
                format!(
                    "{} is in the way: it is not a model's directory (no config.json) and was not downloaded by \
                     Embeddery; complete it, or move it away",
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

    /// Renames a complete staging directory into place.
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

    /// `<base>/.incoming/<org>/<name>@<what>`: no name has an '@', so no two meet.
    fn incoming(&self, name: &HubName, what: &str) -> PathBuf {
        let mut path = self.root.join(".incoming").join(name.as_path()).into_os_string();
        path.push("@");
        path.push(what);
        path.into()
    }
}

/// What the disk refused, at which path, and what helps.
pub(crate) fn io_error(action: &str, path: &Path, error: &io::Error) -> SourceError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            "; make the directory writable or set EMBEDDINGS_MODEL_STORAGE_DIR to one that is"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space or set EMBEDDINGS_MODEL_STORAGE_DIR to a larger disk (what arrived is kept)"
        }
        _ => "",
    };
    SourceError::new(Io, format!("cannot {action} {}: {error}{advice}", path.display()))
}

/// A renamed or created entry survives a power cut only once its directory is written too.
fn sync_directory(path: &Path) -> Result<(), SourceError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("write", path, &error))
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Names of the directories in a directory.
fn subdirectories(path: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok())
}
