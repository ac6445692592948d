//! The hub's two kinds of checksums. Large files (LFS) have a SHA-256. Small files have a git blob id, which is the SHA-1
//! of `blob <length>\0` and the content (git-hash-object(1)).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The announced checksum of a file, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Checksum {
    /// SHA-256 of the content.
    Sha256(String),
    /// Git blob id of the content.
    GitBlob(String),
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "sha256 {digits}"),
            Self::GitBlob(digits) => write!(f, "git blob {digits}"),
        }
    }
}

/// Computes a checksum incrementally.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
    /// The hub announced no checksum.
    None,
}

impl Hasher {
    /// A hasher for a checksum of the same kind. `size` is the length of the whole content: git hashes it first.
    pub(crate) fn new(kind: Option<&Checksum>, size: u64) -> Self {
        match kind {
            Some(Checksum::Sha256(_)) => Self::Sha256(Sha256::new()),
            Some(Checksum::GitBlob(_)) => Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            None => Self::None,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
            Self::None => {}
        }
    }

    /// The checksum of all bytes hashed so far.
    pub(crate) fn current(&self) -> Option<Checksum> {
        match self.clone() {
            Self::Sha256(hasher) => Some(Checksum::Sha256(hex(&hasher.finalize()))),
            Self::GitBlob(hasher) => Some(Checksum::GitBlob(hex(&hasher.finalize()))),
            Self::None => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `printf 'hello\n' | sha256sum`, `printf 'hello\n' | git hash-object --stdin`.
    #[test]
    fn checksums_match_sha256sum_and_git() {
        let sha256 =
            Checksum::Sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".into());
        let git = Checksum::GitBlob("ce013625030ba8dba906f756967f9e9ca394464a".into());
        for expected in [sha256, git] {
            let mut hasher = Hasher::new(Some(&expected), 6);
            hasher.update(b"hel");
            assert_ne!(hasher.current(), Some(expected.clone()));
            hasher.update(b"lo\n");
            assert_eq!(hasher.current(), Some(expected));
        }
    }
}
