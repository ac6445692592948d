//! The API keys of a provider. Requests use them in turn, because vendors limit the rate of each key. A key that is refused
//! or over its rate limit is used last for a while, so that requests succeed although one of several keys is revoked.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embeddery_core::Retry;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

/// How long a refused key is used last, and one whose quota is exhausted.
const KEY_COOLDOWN: Duration = Duration::from_secs(60);
/// How long a key over its rate limit is used last if the vendor names no delay.
const LIMIT_COOLDOWN: Duration = Duration::from_secs(1);

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
    cooldown: Mutex<Option<Cooldown>>,
}

/// A time during which a key is used last.
#[derive(Clone, Copy)]
struct Cooldown {
    until: Instant,
    reason: CooldownReason,
}

/// Why a key is used last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CooldownReason {
    Refused,
    /// The key is over its rate limit.
    Limited,
    /// The quota of the key's account is exhausted.
    Exhausted,
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
                Ok(Key { secret: secret.clone(), value, cooldown: Mutex::default() })
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

    /// The indices of the keys in the order in which one request tries them: from the next in turn on, then the keys in
    /// cooldown, the one that ends first before the others.
    pub(super) fn round_robin(&self) -> Vec<usize> {
        match self.keys.len() {
            0 if self.optional => vec![0],
            0 | 1 => (0..self.keys.len()).collect(),
            count => {
                let first = self.next.fetch_add(1, Ordering::Relaxed);
                let mut order: Vec<usize> = (0..count).map(|offset| (first + offset) % count).collect();
                order.sort_by_cached_key(|key| self.keys[*key].cooldown().map(|cooldown| cooldown.until));
                order
            }
        }
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Starts the cooldown of a refused key.
    pub(super) fn mark_refused(&self, key: usize) {
        self.cool_down(key, KEY_COOLDOWN, CooldownReason::Refused);
    }

    /// Starts the cooldown of a key over its rate limit. `retry` is what the vendor says about a further attempt.
    pub(super) fn mark_limited(&self, key: usize, retry: Retry) {
        let (cooldown, reason) = match retry {
            Retry::After(wait) => (wait, CooldownReason::Limited),
            Retry::Backoff => (LIMIT_COOLDOWN, CooldownReason::Limited),
            Retry::Never => (KEY_COOLDOWN, CooldownReason::Exhausted),
        };
        self.cool_down(key, cooldown, reason);
    }

    fn cool_down(&self, key: usize, duration: Duration, reason: CooldownReason) {
        if let (Some(key), Some(until)) = (self.keys.get(key), Instant::now().checked_add(duration)) {
            *key.cooldown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cooldown { until, reason });
        }
    }

    /// Whether a key is over its rate limit or its account's quota.
    pub(super) fn is_limited(&self, key: usize) -> bool {
        self.keys
            .get(key)
            .and_then(Key::cooldown)
            .is_some_and(|cooldown| cooldown.reason != CooldownReason::Refused)
    }

    /// Time until the first of the keys over their rate limit may be used again; `None` if there is none.
    pub(super) fn limited_for(&self) -> Option<Duration> {
        let cooldowns = self.keys.iter().filter_map(Key::cooldown);
        let limited = cooldowns.filter(|cooldown| cooldown.reason == CooldownReason::Limited);
        limited.map(|cooldown| cooldown.until.saturating_duration_since(Instant::now())).min()
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
    /// The cooldown, if it is not over.
    fn cooldown(&self) -> Option<Cooldown> {
        let cooldown = *self.cooldown.lock().unwrap_or_else(PoisonError::into_inner);
        cooldown.filter(|cooldown| cooldown.until > Instant::now())
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
    fn a_key_over_its_rate_limit_is_used_after_the_others_and_a_refused_key_last() {
        let keys = keys(&["a", "b", "c"]);
        keys.mark_refused(0);
        keys.mark_limited(1, Retry::After(Duration::from_secs(20)));
        assert_eq!(keys.round_robin(), [2, 1, 0]);
        assert!(keys.is_limited(1) && !keys.is_limited(0) && !keys.is_limited(2));
        assert!(keys.limited_for().is_some_and(|wait| wait <= Duration::from_secs(20)));
        keys.mark_limited(1, Retry::Never);
        assert_eq!((keys.is_limited(1), keys.limited_for()), (true, None), "the quota is exhausted");
        keys.mark_limited(2, Retry::After(Duration::ZERO));
        assert!(!keys.is_limited(2), "the delay is over");
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
