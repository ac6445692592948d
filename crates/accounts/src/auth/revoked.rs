//! The tokens that hold no more: a file with one `jti` a line. `#` begins a comment.

use std::{collections::HashSet, path::PathBuf};

use crate::watched::Watched;

/// The list, as the file says it now.
pub(super) struct Revoked(Watched<HashSet<String>>);

impl Revoked {
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        Watched::open(path, |text| Ok(parse(text))).map(Self)
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
