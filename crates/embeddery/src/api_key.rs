//! The caller's key when nobody has set one: made once, kept in the state directory for the next start,
//! readable by its owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use secrecy::SecretString;

/// A key, and how it came to be.
pub(crate) enum ApiKey {
    /// From the environment.
    Given(SecretString),
    /// From an earlier start.
    Stored(SecretString, PathBuf),
    /// Made now.
    Generated(SecretString, PathBuf),
}

impl ApiKey {
    /// The configured key, or the stored one, or a new one.
    pub(crate) fn obtain(given: Option<&SecretString>, state_dir: &Path) -> anyhow::Result<Self> {
        if let Some(key) = given {
            return Ok(Self::Given(key.clone()));
        }
        let path = state_dir.join("api-key");
        match fs::read_to_string(&path) {
            Ok(key) if key.trim().len() >= 16 => {
                return Ok(Self::Stored(SecretString::from(key.trim().to_owned()), path));
            }
            Ok(_) => anyhow::bail!(
                "{} holds no key; delete it to get a new one, or set SINGLE_USER_API_KEY",
                path.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
        let key = generate()?;
        // Written whole under another name, then linked: another start at the same moment sees no half key.
        let draft = state_dir.join(format!("api-key.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(key.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::hard_link(&draft, &path)
        };
        let written = write();
        let _ = fs::remove_file(&draft);
        match written {
            Ok(()) => Ok(Self::Generated(SecretString::from(key), path)),
            // Another process was first; its key holds.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::obtain(None, state_dir),
            Err(error) => Err(error).with_context(|| format!("writing {}", path.display())),
        }
    }

    /// The key itself.
    pub(crate) fn secret(&self) -> SecretString {
        match self {
            Self::Given(key) | Self::Stored(key, _) | Self::Generated(key, _) => key.clone(),
        }
    }
}

/// 192 random bits in hexadecimal.
fn generate() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ApiKey::Generated(first, path) = ApiKey::obtain(None, dir.path()).unwrap() else {
            panic!("not generated")
        };
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let ApiKey::Stored(second, _) = ApiKey::obtain(None, dir.path()).unwrap() else {
            panic!("not stored")
        };
        assert_eq!(first.expose_secret(), second.expose_secret());
        assert_eq!(first.expose_secret().len(), 48);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_empty_key_file_is_not_a_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("api-key"), "\n").unwrap();
        assert!(ApiKey::obtain(None, dir.path()).is_err());
    }
}
