//! The sidecar `.embeddery.json`: revision, commit and checksums of a downloaded model directory. A directory without
//! a sidecar belongs to the user.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use embeddery_core::{
    SourceError,
    SourceErrorKind::{Corrupt, Io},
};
use serde::{Deserialize, Serialize};

use crate::{
    checksum::Checksum,
    model_name::{HubName, Revision},
    models_dir::io_error,
};

const FILE: &str = ".embeddery.json";
const SCHEMA: u32 = 1;

/// The content of the sidecar file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    /// Version of the file's schema.
    schema: u32,
    /// The model's name on the hub.
    pub(crate) repo: String,
    /// The requested revision.
    pub(crate) revision: String,
    /// The commit that the revision named at the time of the download.
    pub(crate) commit: String,
    /// All downloaded files.
    pub(crate) files: Vec<SidecarFile>,
}

/// One downloaded file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SidecarFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) checksum: Option<Checksum>,
}

impl Sidecar {
    pub(crate) fn new(name: &HubName, revision: &Revision, commit: String, files: Vec<SidecarFile>) -> Self {
        Self { schema: SCHEMA, repo: name.to_string(), revision: revision.to_string(), commit, files }
    }

    /// Reads the sidecar of a directory; `None` if there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, SourceError> {
        let path = directory.join(FILE);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(None);
            }
            Err(error) => return Err(io_error("read", &path, &error)),
        };
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let damaged = |error: serde_json::Error| {
            let advice = "remove this file to use the directory as it is, or remove the directory to download the model again";
            SourceError::new(Corrupt, format!("{} is damaged ({error}); {advice}", path.display()))
        };
        let version: Version = serde_json::from_slice(&content).map_err(damaged)?;
        if version.schema > SCHEMA {
            return Err(SourceError::new(
                Io,
                format!(
                    "{} was written by a newer Embeddery (schema {}, this version reads up to {SCHEMA}); use that version, \
                     or remove the directory to download the model again",
                    path.display(),
                    version.schema
                ),
            ));
        }
        serde_json::from_slice(&content).map(Some).map_err(damaged)
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), SourceError> {
        let path = directory.join(FILE);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error: io::Error| io_error("write", &path, &error))
    }
}
