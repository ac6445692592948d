//! The hub's listing of a model revision, and its validation.

use embeddery_core::{SourceError, SourceErrorKind::Corrupt};
use serde::Deserialize;

use crate::{checksum::Checksum, model_name};

/// The validated listing of a model revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit that the revision names.
    pub(crate) commit: String,
    pub(crate) files: Vec<RemoteFile>,
}

/// A file as the hub announces it. Mirrors may leave out size and checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) checksum: Option<Checksum>,
}

/// The JSON of the listing.
#[derive(Deserialize)]
pub(super) struct ListingResponse {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl ListingResponse {
    /// Checks commit, paths and checksums. The paths of a listing become paths on this disk, so nothing of it is used
    /// before this. `subject` names the requested model in errors.
    pub(super) fn validate(self, subject: &str) -> Result<Listing, SourceError> {
        let corrupt = |reason: String| {
            SourceError::new(Corrupt, format!("the hub's listing of {subject} is refused: {reason}"))
        };
        if !model_name::is_commit(&self.sha) {
            return Err(corrupt(format!("{:?} is not a commit", self.sha)));
        }
        let files = self.siblings.into_iter().map(|sibling| {
            let path = &sibling.rfilename;
            if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
                return Err(corrupt(format!("the path {path:?} leaves the model's directory")));
            }
            let (size, checksum) = match (sibling.lfs, sibling.blob_id) {
                (Some(lfs), _) => {
                    (Some(lfs.size), Some((lfs.sha256.len() == 64, Checksum::Sha256(lfs.sha256))))
                }
                // A git blob id can be checked only with the size: the size is part of the hashed bytes.
                (None, Some(id)) if sibling.size.is_some() => {
                    (sibling.size, Some((model_name::is_commit(&id), Checksum::GitBlob(id))))
                }
                _ => (sibling.size, None),
            };
            match checksum {
                Some((false, checksum)) => Err(corrupt(format!("{checksum} of {path:?} is not a checksum"))),
                checksum => {
                    Ok(RemoteFile { path: sibling.rfilename, size, checksum: checksum.map(|(_, sum)| sum) })
                }
            }
        });
        Ok(Listing { commit: self.sha, files: files.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(siblings: &str) -> Result<Listing, SourceError> {
        let response: ListingResponse =
            serde_json::from_str(&format!(r#"{{"sha":"{COMMIT}","siblings":{siblings}}}"#)).unwrap();
        response.validate("model 'a/b'")
    }

    #[test]
    fn a_listing_with_and_without_checksums() {
        let sha256 = "a".repeat(64);
        let listing = check(&format!(
            r#"[{{"rfilename":"w","size":9,"blobId":"{COMMIT}","lfs":{{"sha256":"{sha256}","size":9,"pointerSize":1}}}},
               {{"rfilename":"d/s","size":2,"blobId":"{COMMIT}"}}, {{"rfilename":"m"}}]"#
        ));
        let file = |path: &str, size, checksum| RemoteFile { path: path.into(), size, checksum };
        let expected = vec![
            file("w", Some(9), Some(Checksum::Sha256(sha256))),
            file("d/s", Some(2), Some(Checksum::GitBlob(COMMIT.into()))),
            file("m", None, None),
        ];
        assert_eq!(listing.unwrap(), Listing { commit: COMMIT.into(), files: expected });
    }

    #[test]
    fn invalid_paths_and_checksums_are_refused() {
        for path in ["../x", "a/../x", "/etc/passwd", "a//b", "", "."] {
            let error = check(&format!(r#"[{{"rfilename":"{path}"}}]"#)).unwrap_err();
            assert!(error.kind == Corrupt && error.message.contains("leaves"), "{error}");
        }
        let error = check(r#"[{"rfilename":"x","size":1,"blobId":"../../x"}]"#).unwrap_err();
        assert!(error.message.contains("not a checksum"), "{error}");
    }
}
