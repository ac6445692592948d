//! The API keys of a provider. Requests use them in turn, because vendors limit the rate of each key. A refused key is
//! used last for a while, so that requests succeed although one of several keys is revoked.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

/// How long a refused key is used last.
const KEY_COOLDOWN: Duration = Duration::from_secs(60);

/// The header that carries a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `api-key: …` (Azure).
    ApiKey,
    /// `x-goog-api-key: …`.
    Google,
}

/// The keys of a provider.
pub struct ApiKeyPool {
    header: HeaderName,
    keys: Vec<Key>,
    setting: String,
    /// Whether requests are sent without a key if there is none.
    optional: bool,
    next: AtomicUsize,
}

struct Key {
    secret: SecretString,
    value: HeaderValue,
    refused_at: Mutex<Option<Instant>>,
}

impl KeyHeader {
    /// The name of the header.
    pub(crate) fn name(self) -> HeaderName {
        match self {
            Self::Bearer => AUTHORIZATION,
            Self::ApiKey => HeaderName::from_static("api-key"),
            Self::Google => HeaderName::from_static("x-goog-api-key"),
        }
    }
}

impl ApiKeyPool {
    /// Creates the pool. `setting` is the name of the setting that holds the keys.
    ///
    /// # Errors
    /// A key cannot be sent in a header.
    pub fn new(
        secrets: &[SecretString],
        header: KeyHeader,
        setting: impl Into<String>,
    ) -> Result<Self, String> {
        let prefix = if header == KeyHeader::Bearer { "Bearer " } else { "" };
        let keys = secrets
            .iter()
            .map(|secret| {
                let mut value = HeaderValue::from_str(&format!("{prefix}{}", secret.expose_secret().trim()))
                    .map_err(|_| "contains characters that a key cannot have (a line break?)".to_owned())?;
                value.set_sensitive(true);
                Ok(Key { secret: secret.clone(), value, refused_at: Mutex::default() })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self {
            header: header.name(),
            keys,
            setting: setting.into(),
            optional: false,
            next: AtomicUsize::new(0),
        })
    }

    /// The same keys, for servers that may not require one.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Whether a request can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        self.optional || !self.keys.is_empty()
    }

    /// The name of the setting that holds the keys.
    pub(crate) fn setting(&self) -> &str {
        &self.setting
    }

    /// The indices of the keys in the order in which one request tries them: from the next in turn on, keys in cooldown
    /// last.
    pub(super) fn round_robin(&self) -> Vec<usize> {
        match self.keys.len() {
            0 if self.optional => vec![0],
            0 | 1 => (0..self.keys.len()).collect(),
            count => {
                let first = self.next.fetch_add(1, Ordering::Relaxed);
                let mut order: Vec<usize> = (0..count).map(|offset| (first + offset) % count).collect();
                order.sort_by_key(|key| self.keys[*key].in_cooldown());
                order
            }
        }
    }

    /// Starts the cooldown of a key.
    pub(super) fn mark_refused(&self, key: usize) {
        if let Some(key) = self.keys.get(key) {
            *key.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    pub(super) fn header(&self, key: usize) -> Option<(HeaderName, HeaderValue)> {
        Some((self.header.clone(), self.keys.get(key)?.value.clone()))
    }

    /// A text without the keys.
    pub(super) fn redact(&self, text: &str) -> String {
        self.keys.iter().map(|key| key.secret.expose_secret().trim()).filter(|key| !key.is_empty()).fold(
            text.to_owned(),
            |text, key| if text.contains(key) { text.replace(key, "***") } else { text },
        )
    }
}

impl Key {
    fn in_cooldown(&self) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|at| at.elapsed() < KEY_COOLDOWN)
    }
}

impl fmt::Debug for ApiKeyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyPool({} of {})", self.keys.len(), self.setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> ApiKeyPool {
        let secrets: Vec<_> = secrets.iter().map(|key| SecretString::from(*key)).collect();
        ApiKeyPool::new(&secrets, KeyHeader::Bearer, "OPENAI_API_KEY").unwrap()
    }

    #[test]
    fn keys_are_used_in_turn_and_a_refused_key_last() {
        let keys = keys(&["a", "b", "c"]);
        assert_eq!(
            [keys.round_robin(), keys.round_robin(), keys.round_robin()],
            [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
        );
        keys.mark_refused(0);
        assert_eq!(keys.round_robin(), [1, 2, 0]);
    }

    #[test]
    fn without_keys_nothing_is_sent_unless_they_are_optional() {
        assert!(!keys(&[]).is_usable() && keys(&[]).round_robin().is_empty());
        assert_eq!(keys(&[]).optional().round_robin(), [0]);
    }

    #[test]
    fn keys_are_never_shown() {
        let keys = keys(&["sk-secret"]);
        assert_eq!(
            format!("{keys:?} {:?}", keys.header(0)),
            format!("ApiKeyPool(1 of OPENAI_API_KEY) {:?}", keys.header(0))
        );
        assert!(!format!("{keys:?} {:?}", keys.header(0)).contains("sk-secret"));
        assert_eq!(keys.redact("the key sk-secret is wrong"), "the key *** is wrong");
        assert!(ApiKeyPool::new(&["a\nb".to_owned().into()], KeyHeader::Google, "K").is_err());
    }
}
