//! Redis: its address, its topology, a connection that many callers share, and the health of the server.

mod connection;
mod error;
mod health;
mod topology;

use std::{fmt, sync::Arc};

use secrecy::SecretString;

pub use connection::{ConnectionOptions, DurabilityCheck, SharedConnection};
pub use error::CommandError;
pub use health::findings;
pub use topology::{Connection, Topology};

/// Where a Redis is, and where the keys of this installation are in it.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    /// One of the forms that [`Topology::parse`] accepts. It may hold a password.
    pub url: SecretString,
    /// Certificates in PEM that are trusted in addition to the system's.
    pub ca: Option<Vec<u8>>,
    /// The start of every key.
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

/// The start of every key of one installation. It contains a hash tag, so that all keys are in one slot of a Cluster
/// and a script may use any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// A prefix; it is put into braces if it has none.
    pub fn new(prefix: &str) -> Self {
        if prefix.contains('{') { Self(prefix.into()) } else { Self(format!("{{{prefix}}}").into()) }
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
    }
}
