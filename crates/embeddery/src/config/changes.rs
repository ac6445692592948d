//! What differs between two readings of the configuration file, key by key, and which of these keys a running process
//! can take up. Values are kept as fingerprints only: some are secrets.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use serde_json::Value;

/// Keys, and those below them, that a running process takes up. All others need a restart.
const LIVE: [&str; 22] = [
    "default_model_id",
    "dimension_policy",
    "models",
    "auth",
    "limits",
    "quotas",
    "tls",
    "log.level",
    "log_level",
    "server.request_timeout_seconds",
    "server.body_timeout_seconds",
    "server.body_limit_bytes",
    "server.text_limit_bytes",
    "server.header_limit_bytes",
    "server.max_inputs",
    "server.metrics_auth",
    "server.trusted_proxies",
    "server.cors_origins",
    "retry",
    "policy",
    "providers",
    "outbound",
];

/// Exceptions below those: what a model in memory, or the whole process, was made with.
const FIXED: [&str; 9] = [
    "auth.mode",
    "retry.max_wait_seconds",
    "models.auto_download",
    "models.*.precision",
    "models.*.max_length",
    "models.*.prompts",
    "models.*.matryoshka",
    "models.*.unload_timeout_seconds",
    "models.*.onnx_file",
];

/// A file's keys, each with a fingerprint of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written(BTreeMap<String, u64>);

impl Written {
    /// The keys of a file that holds. One that cannot be read has been refused before.
    pub(super) fn of(text: &str) -> Self {
        let mut keys = BTreeMap::new();
        if let Ok(value) = serde_saphyr::from_str::<Value>(text) {
            collect("", &value, &mut keys);
        }
        Self(keys)
    }

    /// Keys whose values differ in `newer`: those a running process takes up, and those that need a restart.
    pub(crate) fn changes(&self, newer: &Self) -> (Vec<String>, Vec<String>) {
        let keys: BTreeSet<&String> = self.0.keys().chain(newer.0.keys()).collect();
        let differing = keys.into_iter().filter(|key| self.0.get(*key) != newer.0.get(*key)).cloned();
        differing.partition(|key| is_live(key))
    }
}

fn collect(path: &str, value: &Value, keys: &mut BTreeMap<String, u64>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, keys);
            }
        }
        // An empty section says nothing.
        Value::Null => {}
        leaf => {
            let mut hasher = DefaultHasher::new();
            leaf.to_string().hash(&mut hasher);
            keys.insert(path.to_owned(), hasher.finish());
        }
    }
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| is_below(key, live)) && !FIXED.iter().any(|fixed| is_below(key, fixed))
}

/// Whether a key is `place` or below it; `*` stands for one name, which may have dots of its own.
fn is_below(key: &str, place: &str) -> bool {
    let within = |key: &str, place: &str| {
        key.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match place.split_once(".*.") {
        None => within(key, place),
        Some((before, after)) => {
            let rest = key.strip_prefix(before).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| rest.match_indices('.').any(|(dot, _)| within(&rest[dot + 1..], after)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
        Written::of(old).changes(&Written::of(new))
    }

    #[test]
    fn changes_are_named_by_key_and_told_apart() {
        let old = "listen: 127.0.0.1:1\nlimits: {burst: 1}\nmodels:\n  a: {provider: openai, model_name_or_path: x}\n";
        let new =
            "listen: 127.0.0.1:2\nlimits: {burst: 2}\nmodels:\n  b.c: {provider: openai, precision: f32}\n";
        let (live, restart) = changes(old, new);
        let models = ["models.a.model_name_or_path", "models.a.provider", "models.b.c.provider"];
        assert_eq!(live, [["limits.burst"].as_slice(), &models].concat());
        assert_eq!(restart, ["listen", "models.b.c.precision"]);
    }

    #[test]
    fn what_says_the_same_is_no_change() {
        assert_eq!(
            changes("limits:\n  burst: 1\n# more\n", "limits: {burst: 1}\nretry:\n"),
            Default::default()
        );
        assert_eq!(changes("", "# nothing\n"), Default::default());
    }

    #[test]
    fn exceptions_are_exceptions() {
        for key in ["auth.issuer", "models.a.fallback", "providers.openai.api_key", "log.level", "limits"] {
            assert!(is_live(key), "{key}");
        }
        for key in ["auth.mode", "models.auto_download", "models.x.y.prompts.query", "log.format", "limitsx"]
        {
            assert!(!is_live(key), "{key}");
        }
    }
}
