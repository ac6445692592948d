//! A provider's keys: used in turn, so that the vendor's limits of each are shared out; a refused one is left
//! alone for a while, so that one revoked key of several harms nobody.

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

/// How long a refused key rests.
const KEY_COOLDOWN: Duration = Duration::from_secs(60);

/// Where a vendor wants its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `api-key: …` (Azure).
    ApiKey,
    /// `x-goog-api-key: …`.
    Google,
}

/// Keys, ready to be sent.
pub struct ApiKeyPool {
    header: HeaderName,
    keys: Vec<Key>,
    setting: String,
    /// Whether requests go out without a key when there is none.
    optional: bool,
    turn: AtomicUsize,
}

struct Key {
    secret: SecretString,
    value: HeaderValue,
    refused: Mutex<Option<Instant>>,
}

impl KeyHeader {
    /// The header's name.
    pub(crate) fn name(self) -> HeaderName {
        match self {
            Self::Bearer => AUTHORIZATION,
            Self::ApiKey => HeaderName::from_static("api-key"),
            Self::Google => HeaderName::from_static("x-goog-api-key"),
        }
    }
}

impl ApiKeyPool {
    /// Keys of a vendor. `setting` is what a user has to set to change them.
    pub fn new(
        secrets: &[SecretString],
        place: KeyHeader,
        setting: impl Into<String>,
    ) -> Result<Self, String> {
        let prefix = if place == KeyHeader::Bearer { "Bearer " } else { "" };
        let keys = secrets
            .iter()
            .map(|secret| {
                let mut value = HeaderValue::from_str(&format!("{prefix}{}", secret.expose_secret().trim()))
                    .map_err(|_| "holds characters that no key has (a line break?)".to_owned())?;
                value.set_sensitive(true);
                Ok(Key { secret: secret.clone(), value, refused: Mutex::default() })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self {
            header: place.name(),
            keys,
            setting: setting.into(),
            optional: false,
            turn: AtomicUsize::new(0),
        })
    }

    /// The same keys, for servers that may not ask for one.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Whether a request can be sent.
    pub(crate) fn usable(&self) -> bool {
        self.optional || !self.keys.is_empty()
    }

    /// What a user has to set.
    pub(crate) fn setting(&self) -> &str {
        &self.setting
    }

    /// The keys to try for one request, each once: the next in turn first, the resting ones last.
    pub(super) fn round_robin(&self) -> Vec<usize> {
        match self.keys.len() {
            0 if self.optional => vec![0],
            0 | 1 => (0..self.keys.len()).collect(),
            count => {
                let first = self.turn.fetch_add(1, Ordering::Relaxed);
                let mut order: Vec<usize> = (0..count).map(|place| (first + place) % count).collect();
                order.sort_by_key(|key| self.keys[*key].in_cooldown());
                order
            }
        }
    }

    pub(super) fn refused(&self, key: usize) {
        if let Some(key) = self.keys.get(key) {
            *key.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    pub(super) fn header(&self, key: usize) -> Option<(HeaderName, HeaderValue)> {
        Some((self.header.clone(), self.keys.get(key)?.value.clone()))
    }

    /// A vendor's words with every key taken out of them.
    pub(super) fn redact(&self, text: &str) -> String {
        self.keys.iter().map(|key| key.secret.expose_secret().trim()).filter(|key| !key.is_empty()).fold(
            text.to_owned(),
            |text, key| if text.contains(key) { text.replace(key, "***") } else { text },
        )
    }
}

impl Key {
    fn in_cooldown(&self) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| at.elapsed() < KEY_COOLDOWN)
    }
}

impl fmt::Debug for ApiKeyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of {})", self.keys.len(), self.setting)
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
    fn keys_take_turns_and_a_refused_one_comes_last() {
        let keys = keys(&["a", "b", "c"]);
        assert_eq!(
            [keys.round_robin(), keys.round_robin(), keys.round_robin()],
            [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
        );
        keys.refused(0);
        assert_eq!(keys.round_robin(), [1, 2, 0]);
    }

    #[test]
    fn without_keys_nothing_is_sent_unless_none_is_needed() {
        assert!(!keys(&[]).usable() && keys(&[]).round_robin().is_empty());
        assert_eq!(keys(&[]).optional().round_robin(), [0]);
    }

    #[test]
    fn keys_show_nowhere() {
        let keys = keys(&["sk-secret"]);
        assert_eq!(
            format!("{keys:?} {:?}", keys.header(0)),
            format!("Keys(1 of OPENAI_API_KEY) {:?}", keys.header(0))
        );
        assert!(!format!("{keys:?} {:?}", keys.header(0)).contains("sk-secret"));
        assert_eq!(keys.redact("the key sk-secret is wrong"), "the key *** is wrong");
        assert!(ApiKeyPool::new(&["a\nb".to_owned().into()], KeyHeader::Google, "K").is_err());
    }
}
