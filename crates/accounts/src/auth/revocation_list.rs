//! The list of revoked tokens: a file with one `jti` per line. `#` starts a comment.

use std::{collections::HashSet, path::PathBuf};

use crate::reloading_file::ReloadingFile;

/// The current content of the file.
pub(super) struct RevocationList(ReloadingFile<HashSet<String>>);

impl RevocationList {
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        ReloadingFile::open(path, |text| Ok(parse(text))).map(Self)
    }

    pub(super) fn contains(&self, jti: &str) -> bool {
        self.0.get().contains(jti)
    }
}

fn parse(text: &str) -> HashSet<String> {
    text.lines()
        .map(|line| line.split_once('#').map_or(line, |(before, _)| before).trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}
