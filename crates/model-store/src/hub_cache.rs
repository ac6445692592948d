//! The Hugging Face cache, which other programs of this machine fill. It is read and never written.
//!
//! `models--org--name/refs/<revision>` contains a commit. `snapshots/<commit>/` contains the files of that commit, as
//! links into `blobs/`. `.no_exist/<commit>/` contains an empty file for each name that the repository does not have.
//! <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    model_files::{self, Weights, WeightsFormat},
    model_name::{self, HubName, Name, Revision},
};

/// The cache's `hub` directory.
#[derive(Clone, Debug)]
pub(crate) struct HubCache {
    root: PathBuf,
}

impl HubCache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cache's directory of a model.
    pub(crate) fn directory(&self, name: &HubName) -> PathBuf {
        let segments: Vec<&str> = name.segments().collect();
        self.root.join(format!("models--{}", segments.join("--")))
    }

    /// The model's snapshot of the requested revision (`main` by default), if it is complete.
    pub(crate) fn find(
        &self,
        name: &HubName,
        revision: Option<&Revision>,
        weights: Weights<'_>,
    ) -> Option<PathBuf> {
        let model = self.directory(name);
        let main = Revision::default();
        let revision = revision.unwrap_or(&main).as_str();
        let commit = match fs::read_to_string(model.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        (model_name::is_commit(&commit) && is_complete(&model, &commit, weights))
            .then(|| model.join("snapshots").join(commit))
    }

    /// Names of all complete models.
    pub(crate) fn list(&self, format: &WeightsFormat) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let directory = entry.file_name().into_string().ok()?;
            Some(directory.strip_prefix("models--")?.replacen("--", "/", 1))
        });
        names
            .filter(|name| {
                let weights = format.weights(name);
                matches!(Name::parse(name), Ok(Name::Hub(name)) if self.find(&name, None, weights).is_some())
            })
            .collect()
    }
}

/// Whether a snapshot has all files of an encoder. Other programs download single files into the cache. A program that
/// needs only the transformer leaves `modules.json` out, and without that file the model would get the wrong pooling.
/// So the file must be present, or the repository must be known to have none, or the whole repository must have been
/// downloaded (which the file `.gitattributes` shows).
fn is_complete(model: &Path, commit: &str, weights: Weights<'_>) -> bool {
    let snapshot = model.join("snapshots").join(commit);
    let evidence = [
        snapshot.join(model_files::MODULES),
        snapshot.join(".gitattributes"),
        model.join(".no_exist").join(commit).join(model_files::MODULES),
    ];
    model_files::missing_files(&snapshot, weights).is_none() && evidence.iter().any(|file| file.is_file())
}
