//! The download of a model: the listing, the choice of files, the download of each file into the staging directory, and
//! the rename that publishes the model. All files are requested by the commit that the listing names, so two revisions
//! cannot mix, and a killed download resumes where it stopped.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use embeddery_core::{
    Progress, SourceError,
    SourceErrorKind::{Corrupt, NotFound},
};

use crate::{
    disk::DiskLimits,
    download::Download,
    hub::{FileAddress, Hub, Listing, RemoteFile},
    lock::Lock,
    model_files::{self, Weights},
    model_name::{HubName, Revision},
    models_dir::ModelsDir,
    partial_file::blocking,
    retry::{Retries, RetryPolicy},
    sidecar::{Sidecar, SidecarFile},
};

/// A model to download. The caller holds the lock.
pub(crate) struct ModelDownload<'a> {
    pub(crate) base: &'a ModelsDir,
    pub(crate) hub: &'a Hub,
    pub(crate) retry: RetryPolicy,
    pub(crate) name: &'a HubName,
    pub(crate) progress: &'a Progress,
    pub(crate) weights: Weights<'a>,
    pub(crate) disk: DiskLimits,
    pub(crate) lock: Lock,
}

impl ModelDownload<'_> {
    /// Downloads the model and returns its directory.
    pub(crate) async fn run(self, revision: &Revision) -> Result<PathBuf, SourceError> {
        let Listing { commit, files } = self.listing(revision).await?;
        let files = self.choose(files, revision)?;
        self.progress.set_total(files.iter().filter_map(|file| file.size).sum());
        let lock = Arc::new(self.lock);
        let (base, name, staged_commit) = (self.base.clone(), self.name.clone(), commit.clone());
        let staging = blocking(move || base.stage(&name, &staged_commit)).await??;
        let (base, disk, selected, target) = (self.base.clone(), self.disk, files.clone(), staging.clone());
        blocking(move || disk.check(&base, &target, &selected)).await??;

        let mut done = 0;
        let mut fetched = Vec::new();
        for file in &files {
            let target = staging.join(&file.path);
            let size = match target.metadata() {
                // An earlier attempt completed this file: a file gets its final name only after it is verified.
                Ok(metadata) if file.size.is_none_or(|size| size == metadata.len()) => metadata.len(),
                _ => {
                    let download = Download {
                        hub: self.hub,
                        retry: self.retry,
                        progress: self.progress,
                        address: FileAddress { name: self.name, commit: &commit, path: &file.path },
                        announced: file,
                        target,
                        bytes_before: done,
                        lock: Arc::clone(&lock),
                    };
                    download.run().await?
                }
            };
            done += size;
            self.progress.set_done(done);
            fetched.push(SidecarFile { path: file.path.clone(), size, checksum: file.checksum.clone() });
        }
        if let Some(missing) = model_files::missing_files(&staging, self.weights) {
            let message = format!(
                "model '{}' at revision '{revision}' refers to {missing}, which it does not have",
                self.name
            );
            return Err(SourceError::new(Corrupt, message));
        }
        let sidecar = Sidecar::new(self.name, revision, commit, fetched);
        let (base, name) = (self.base.clone(), self.name.clone());
        blocking(move || {
            let published = base.publish(&name, &staging, &sidecar);
            drop(lock); // held until here, even if the future is dropped
            published
        })
        .await?
    }

    async fn listing(&self, revision: &Revision) -> Result<Listing, SourceError> {
        let mut retries = Retries::new(self.retry);
        loop {
            match self.hub.listing(self.name, revision).await {
                Ok(listing) => return Ok(listing),
                Err(failure) => retries.wait_after(failure).await?,
            }
        }
    }

    fn choose(&self, files: Vec<RemoteFile>, revision: &Revision) -> Result<Vec<RemoteFile>, SourceError> {
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let chosen: BTreeSet<String> = model_files::select(&paths, self.weights)
            .map_err(|missing| {
                SourceError::new(
                    NotFound,
                    format!(
                        "model '{}' at revision '{revision}' has no {missing}, which this engine needs; choose a \
                         revision or a model that has it, or convert it and put it into {}",
                        self.name,
                        self.base.directory(self.name).display()
                    ),
                )
            })?
            .into_iter()
            .map(str::to_owned)
            .collect();
        Ok(files.into_iter().filter(|file| chosen.contains(&file.path)).collect())
    }
}
