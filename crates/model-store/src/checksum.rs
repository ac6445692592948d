//! The hub's two checksums. Large files (LFS) have a SHA-256; small ones have their git blob id, which is
//! SHA-1 over `blob <length>\0` and the content (git-hash-object(1)).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// What the hub says a file's content hashes to, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Checksum {
    /// SHA-256 of the content.
    Sha256(String),
    /// Git's blob id of the content.
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

/// Computes a checksum while bytes pass by.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
    /// The hub announced no checksum.
    Nothing,
}

impl Hasher {
    /// For a checksum of this kind. `size` is the length of the whole content, which git hashes first.
    pub(crate) fn new(kind: Option<&Checksum>, size: u64) -> Self {
        match kind {
            Some(Checksum::Sha256(_)) => Self::Sha256(Sha256::new()),
            Some(Checksum::GitBlob(_)) => Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            None => Self::Nothing,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
            Self::Nothing => {}
        }
    }

    /// The checksum of all bytes so far.
    pub(crate) fn current(&self) -> Option<Checksum> {
        match self.clone() {
            Self::Sha256(hasher) => Some(Checksum::Sha256(hex(&hasher.finalize()))),
            Self::GitBlob(hasher) => Some(Checksum::GitBlob(hex(&hasher.finalize()))),
            Self::Nothing => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: `printf 'hello\n' | sha256sum`, `printf 'hello\n' | git hash-object --stdin`.
    #[test]
    fn known_answers() {
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
