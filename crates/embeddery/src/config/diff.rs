//! What differs between two readings of the configuration file, key by key, and which of these keys a running process
//! takes up. Values are kept as fingerprints only: some are secrets.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use super::{
    keys,
    tree::{Node, Value},
};

/// A file's keys, each with a fingerprint of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyFingerprints(BTreeMap<Vec<String>, u64>);

impl KeyFingerprints {
    /// The keys of a file.
    pub(super) fn from_file(file: &Node) -> Self {
        let mut keys = BTreeMap::new();
        collect(&mut Vec::new(), file, &mut keys);
        Self(keys)
    }

    /// Keys whose values differ in `newer`: those a running process takes up, and those that need a restart.
    pub(crate) fn changes(&self, newer: &Self) -> (Vec<String>, Vec<String>) {
        let paths: BTreeSet<&Vec<String>> = self.0.keys().chain(newer.0.keys()).collect();
        let (live, restart): (Vec<&Vec<String>>, Vec<&Vec<String>>) =
            paths.into_iter().filter(|path| self.0.get(*path) != newer.0.get(*path)).partition(|path| {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                keys::is_live(&names)
            });
        let joined = |paths: Vec<&Vec<String>>| paths.into_iter().map(|path| path.join(".")).collect();
        (joined(live), joined(restart))
    }
}

fn collect(path: &mut Vec<String>, node: &Node, keys: &mut BTreeMap<Vec<String>, u64>) {
    match &node.value {
        Value::Map(entries) => {
            for (name, value) in entries {
                path.push(name.clone());
                collect(path, value, keys);
                path.pop();
            }
        }
        // An empty section sets nothing.
        Value::Null => {}
        Value::Scalar { .. } | Value::List(_) => {
            let mut hasher = DefaultHasher::new();
            hash(node, &mut hasher);
            keys.insert(path.clone(), hasher.finish());
        }
    }
}

fn hash(node: &Node, hasher: &mut DefaultHasher) {
    match &node.value {
        Value::Null => 0.hash(hasher),
        Value::Scalar { text, .. } => text.hash(hasher),
        Value::List(items) => items.iter().for_each(|item| hash(item, hasher)),
        Value::Map(entries) => entries.iter().for_each(|(name, value)| {
            name.hash(hasher);
            hash(value, hasher);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::load::parse_file, *};

    fn changes(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
        let of = |text| KeyFingerprints::from_file(&parse_file(text, "t").unwrap());
        of(old).changes(&of(new))
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
        assert_eq!(
            changes("server: {cors_origins: [a, b]}", "server: {cors_origins: [ab]}").0,
            ["server.cors_origins"]
        );
    }
}
