//! Parsing of model names and revisions. A name becomes part of paths and URLs, so only a narrow set of characters is
//! allowed. All other code relies on that.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use embeddery_core::{SourceError, SourceErrorKind::InvalidName};

/// A parsed model name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A directory on this machine.
    Path(PathBuf),
    /// A model of the hub, on this machine or not.
    Hub(HubName),
}

impl Name {
    /// Parses a name. It is a path if it is absolute or begins with `./` or `../`, otherwise a hub name.
    pub(crate) fn parse(name: &str) -> Result<Self, SourceError> {
        let path = Path::new(name);
        if name.contains('\0') {
            return Err(invalid(name));
        }
        if path.is_absolute() || ["./", "../"].iter().any(|start| name.starts_with(start)) {
            return Ok(Self::Path(path.to_path_buf()));
        }
        let (org, model) = match name.split_once('/') {
            Some((org, model)) => (Some(org), model),
            None => (None, name),
        };
        if !org.is_none_or(is_segment) || !is_segment(model) {
            return Err(invalid(name));
        }
        Ok(Self::Hub(HubName { org: org.map(str::to_owned), model: model.to_owned() }))
    }
}

/// `org/model` or, for the hub's oldest models, `model`. Safe as a relative path and in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubName {
    org: Option<String>,
    model: String,
}

impl HubName {
    /// The organisation, if there is one, and the model.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.org.as_deref().into_iter().chain([self.model.as_str()])
    }

    /// `org/model` as a relative path.
    pub(crate) fn as_path(&self) -> PathBuf {
        self.segments().collect()
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(org) = &self.org {
            write!(f, "{org}/")?;
        }
        f.write_str(&self.model)
    }
}

/// A branch, tag or commit of a hub model. Safe as a relative path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision(String);

impl Revision {
    pub(crate) fn parse(revision: &str) -> Result<Self, SourceError> {
        // Git refs such as refs/pr/1 have slashes.
        if revision.len() <= 256 && revision.split('/').all(is_segment) {
            return Ok(Self(revision.to_owned()));
        }
        Err(SourceError::new(
            InvalidName,
            format!(
                "revision \"{}\" cannot be a branch, tag or commit: letters, digits, '_', '-', '.' and '/' are \
                 allowed, no '..' and no part that is empty or begins with '.'",
                escaped(revision)
            ),
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The hub's default branch.
impl Default for Revision {
    fn default() -> Self {
        Self("main".into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a full commit id of 40 lower-case hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a valid part of a name, by the hub's rules. A leading dot is forbidden, because hidden directories
/// are reserved for the store.
fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=96).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('.')
        && !text.contains("..")
}

fn invalid(name: &str) -> SourceError {
    SourceError::new(
        InvalidName,
        format!(
            "\"{}\" cannot be a model name: 'org/model' or 'model' of letters, digits, '_', '-' and '.' is \
             allowed, no '..' and no part that is empty, begins with '.' or has more than 96 characters; \
             a directory's path begins with '/', './' or '../'",
            escaped(name)
        ),
    )
}

/// A text of the caller, escaped and shortened for a message.
fn escaped(text: &str) -> String {
    let mut escaped: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        escaped.push('…');
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn hub(name: &str) -> String {
        match Name::parse(name).unwrap() {
            Name::Hub(name) => name.to_string(),
            Name::Path(path) => panic!("{name} is the path {}", path.display()),
        }
    }

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(hub("sentence-transformers/all-MiniLM-L6-v2"), "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(hub("bert-base-uncased"), "bert-base-uncased");
        for path in ["/models/x", "./x", "../x/y/z"] {
            assert_eq!(Name::parse(path).unwrap(), Name::Path(path.into()));
        }
        let long = "x".repeat(97);
        for bad in [
            "",
            "a/",
            "/",
            "a/b/c",
            "a/..",
            "a..b",
            "..",
            "../",
            "a\\b",
            "a b",
            "a/b\n",
            ".incoming",
            "~/x",
            "ä/b",
            &long,
        ] {
            let parsed = Name::parse(bad);
            if !matches!(parsed, Ok(Name::Path(_))) {
                let error = parsed.unwrap_err();
                assert!(error.kind == InvalidName && error.message.contains("allowed"), "{error}");
            }
        }
        assert!(
            Name::parse("a/b\n").unwrap_err().message.contains("a/b\\n"),
            "control characters are shown escaped"
        );
    }

    #[test]
    fn revisions_may_have_slashes_but_no_dot_segments() {
        for good in ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"] {
            assert_eq!(Revision::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/", "../x", "a//b", "a/../b", "-\n", ".git"] {
            assert_eq!(Revision::parse(bad).unwrap_err().kind, InvalidName, "{bad}");
        }
    }

    fn stays_inside(path: &Path) -> bool {
        path.components().all(|part| matches!(part, Component::Normal(_)))
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_inside_the_base_directory(name in "[a-zA-Z0-9_./\\\\~ -]{0,12}|\\PC{0,12}") {
            if let Ok(Name::Hub(parsed)) = Name::parse(&name) {
                prop_assert!(stays_inside(&parsed.as_path()));
                prop_assert_eq!(parsed.to_string(), name);
            }
        }

        #[test]
        fn an_accepted_revision_stays_inside_its_directory(text in "[a-z0-9_./\\\\-]{0,12}|\\PC{0,12}") {
            if let Ok(revision) = Revision::parse(&text) {
                prop_assert!(stays_inside(Path::new(revision.as_str())));
            }
        }
    }
}
