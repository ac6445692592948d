//! Redis: its address, its topology, a connection that many callers share, and checks of the server's durability.

mod connection;
mod error;
mod health;
mod topology;

use std::{fmt, sync::Arc};

use secrecy::SecretString;

pub use connection::{ConnectionOptions, DurabilityCheck, SharedConnection};
pub use error::CommandError;
pub use health::durability_findings;
pub use topology::{Connection, Topology};

/// The address of a Redis, and the prefix of this installation's keys in it.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    /// The URL, in a form that [`Topology::parse`] accepts. It may contain a password.
    pub url: SecretString,
    /// Certificates in PEM that are trusted in addition to the system's.
    pub ca: Option<Vec<u8>>,
    /// The prefix of every key.
    pub prefix: KeyPrefix,
}

impl RedisAddress {
    /// An address with the system's certificates and the default prefix.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self { url: url.into(), ca: None, prefix: KeyPrefix::default() }
    }

    /// The topology that the URL names.
    ///
    /// # Errors
    /// If the URL or the certificates are invalid. The message continues a sentence that begins with the setting's
    /// name, and does not repeat the URL.
    pub fn topology(&self) -> Result<Topology, String> {
        Topology::parse(&self.url, self.ca.as_deref())
    }
}

/// The prefix of every key of one installation. It contains a hash tag, so that all keys are in one slot of a Cluster
/// and a script may use any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// A prefix. It is put into braces if it has no hash tag. Braces cannot make a hash tag of an empty text, nor of one
    /// that starts with `}`; the configuration rejects both.
    pub fn new(prefix: &str) -> Self {
        if has_hash_tag(prefix) { Self(prefix.into()) } else { Self(format!("{{{prefix}}}").into()) }
    }

    /// The prefix with its braces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key with these parts: `{prefix}:part:part`.
    pub fn key(&self, parts: &[&str]) -> String {
        let mut key = self.0.to_string();
        for part in parts {
            key.push(':');
            key.push_str(part);
        }
        key
    }
}

/// Whether Redis hashes only a part of a key with this prefix: the text between the first `{` and the next `}`, unless
/// it is empty.
fn has_hash_tag(prefix: &str) -> bool {
    let tag = prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self("{embeddings}".into())
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_has_a_hash_tag() {
        assert_eq!(KeyPrefix::default().key(&["limit", "requests"]), "{embeddings}:limit:requests");
        assert_eq!(KeyPrefix::new("other").as_str(), "{other}");
        assert_eq!(KeyPrefix::new("{other}").as_str(), "{other}");
        assert_eq!(KeyPrefix::new("a{b}c").as_str(), "a{b}c");
    }

    /// Redis hashes the whole key when the first `{` has no later `}`, or nothing is between them.
    #[test]
    fn a_prefix_with_unusable_braces_gets_a_hash_tag() {
        for prefix in ["a{b", "a}b{c", "{}x", "{}{x}", "a{"] {
            assert_eq!(KeyPrefix::new(prefix).as_str(), format!("{{{prefix}}}"));
            assert!(has_hash_tag(KeyPrefix::new(prefix).as_str()), "{prefix}");
        }
    }
}
