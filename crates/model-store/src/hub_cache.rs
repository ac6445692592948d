//! The Hugging Face cache, as other programs of this machine fill it. Read, never written.
//!
//! `models--org--name/refs/<revision>` holds a commit, `snapshots/<commit>/` the files of that commit (links
//! into `blobs/`), `.no_exist/<commit>/` empty files for what the repository is known not to have.
//! <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    model_files::{self, Format, Weights},
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

    /// Where the cache keeps a model.
    pub(crate) fn directory(&self, name: &HubName) -> PathBuf {
        let segments: Vec<&str> = name.segments().collect();
        self.root.join(format!("models--{}", segments.join("--")))
    }

    /// The model's snapshot if it is here, whole, in the revision asked for (`main`, when none is).
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
        (model_name::is_commit(&commit) && is_whole(&model, &commit, weights))
            .then(|| model.join("snapshots").join(commit))
    }

    /// Names of the models here.
    pub(crate) fn list(&self, format: &Format) -> Vec<String> {
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

/// Whether a snapshot has all files of an encoder. Programs fetch single files into the cache, and one that
/// needs only the transformer leaves `modules.json` out: such a model would get another pooling than its
/// authors meant. Its absence is believed only when the repository is known to have none, or when the whole
/// repository was taken (only then is `.gitattributes` here).
fn is_whole(model: &Path, commit: &str, weights: Weights<'_>) -> bool {
    let snapshot = model.join("snapshots").join(commit);
    let told = [
        snapshot.join(model_files::MODULES),
        snapshot.join(".gitattributes"),
        model.join(".no_exist").join(commit).join(model_files::MODULES),
    ];
    model_files::missing_files(&snapshot, weights).is_none() && told.iter().any(|file| file.is_file())
}
