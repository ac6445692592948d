//! Reads one JSON file of a model directory, and builds errors about its content.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::LoadError;

pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
    let text = fs::read(file).map_err(|source| LoadError::Io { file: file.to_path_buf(), source })?;
    serde_json::from_slice(&text).map_err(|error| LoadError::Malformed {
        file: file.to_path_buf(),
        expected: "a model configuration",
        reason: error.to_string(),
    })
}

pub(super) fn read_if_exists<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if file.exists() { read(file).map(Some) } else { Ok(None) }
}

pub(super) fn unsupported(file: &Path, key: &str, found: &str, supported: &str) -> LoadError {
    LoadError::Unsupported {
        file: file.to_path_buf(),
        key: key.into(),
        found: format!("'{found}'"),
        supported: supported.into(),
    }
}
