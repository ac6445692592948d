//! Keys of a file that are not read as they stand: unknown ones, which are problems; other names of a key; and
//! keys and variables without effect. An operator must not believe that a limit is in force when it is not, so each
//! of these is logged once at the start.

use embeddery_core::{ProviderKind, nearest_name};

use super::{
    deserialize::unknown_key,
    environment::Environment,
    key::{Relation, Usage},
    keys::{self, KEYS},
    reader::place,
    tree::{Node, Source, Value},
};

/// What became of a file's keys.
#[derive(Default)]
pub(super) struct Screened {
    /// One line for each key that has no effect.
    pub(super) notices: Vec<String>,
    /// One line for each unknown key.
    pub(super) problems: Vec<String>,
}

/// Takes everything out of a file that no section reads. `name` is what a problem calls the file.
pub(super) fn screen(file: &mut Node, defaults: &Node, name: &str) -> Screened {
    let mut screen = Screen { defaults, name, moved: Vec::new(), screened: Screened::default() };
    screen.section(file, &[]);
    for (target, node) in screen.moved {
        let target: Vec<&str> = target.split('.').collect();
        if file.get(&target).is_none_or(|written| matches!(written.value, Value::Null)) {
            file.insert(&target, node);
        }
    }
    let mut screened = screen.screened;
    screened.notices.extend(unused_model_keys(file));
    screened
}

struct Screen<'a> {
    defaults: &'a Node,
    name: &'a str,
    moved: Vec<(&'static str, Node)>,
    screened: Screened,
}

impl Screen<'_> {
    fn section(&mut self, section: &mut Node, path: &[&str]) {
        section.retain(|name, node| {
            let path = [path, &[name]].concat();
            self.keeps(&path, node)
        });
    }

    /// Whether the file keeps this key.
    fn keeps(&mut self, path: &[&str], node: &mut Node) -> bool {
        let row = keys::find(path);
        match row.map_or(Usage::Read, |key| key.usage) {
            Usage::Ignored(reason) => return self.ignore(path, reason),
            Usage::IgnoredList(reason) if matches!(node.value, Value::List(_)) => {
                return self.ignore(path, reason);
            }
            Usage::Alias(target) => {
                self.moved.push((target, node.clone()));
                return false;
            }
            Usage::EnvironmentOnly => return self.unknown(path, node),
            Usage::Read | Usage::IgnoredList(_) => {}
        }
        let default = self.defaults.get(path);
        let has_keys = KEYS.iter().any(|key| key.relation(path) == Relation::Above && is_of_files(key.usage))
            || default.is_some_and(|default| matches!(default.value, Value::Map(_)));
        if has_keys {
            self.section(node, path);
        }
        has_keys || row.is_some() || default.is_some() || self.unknown(path, node)
    }

    fn ignore(&mut self, path: &[&str], reason: &str) -> bool {
        if !reason.is_empty() {
            self.screened.notices.push(format!("'{}' has no effect: {reason}", path.join(".")));
        }
        false
    }

    fn unknown(&mut self, path: &[&str], node: &Node) -> bool {
        let (name, section) = path.split_last().map_or(("", path), |(name, section)| (*name, section));
        let mut known: Vec<&str> = Vec::new();
        if let Some(defaults) = self.defaults.get(section) {
            known.extend(defaults.entries().iter().map(|(name, _)| name.as_str()));
        }
        known.extend(
            KEYS.iter().filter(|key| is_of_files(key.usage)).filter_map(|key| key.name_after(section)),
        );
        known.retain(|name| *name != "*");
        known.sort_unstable();
        known.dedup();
        let place = place(Some(node), self.name);
        self.screened.problems.push(format!("{place}{}", unknown_key(name, &known)));
        false
    }
}

fn is_of_files(usage: Usage) -> bool {
    usage != Usage::EnvironmentOnly
}

/// Keys of models that their provider does not use.
fn unused_model_keys(file: &mut Node) -> Vec<String> {
    let mut notices = Vec::new();
    let ids: Vec<(String, ProviderKind)> = file
        .get(&["models"])
        .into_iter()
        .flat_map(Node::entries)
        .filter_map(|(id, entry)| Some((id.clone(), entry.get(&["provider"])?.text()?.parse().ok()?)))
        .collect();
    for (id, provider) in ids {
        let unused = KEYS
            .iter()
            .filter(|key| key.unused_by.contains(&provider))
            .filter_map(|key| key.name_after(&["models", &id]))
            .filter(|name| {
                file.remove(&["models", &id, name]).is_some_and(|node| !matches!(node.value, Value::Null))
            });
        let unused: Vec<&str> = unused.collect();
        if !unused.is_empty() {
            notices.push(format!("models.{id}: this version does not read {}", unused.join(", ")));
        }
    }
    notices
}

/// Variables without effect. One with our prefix that is in no row is most likely a typo; other programs may own the
/// prefix, too, so it is not an error.
pub(super) fn variables(environment: &Environment) -> Vec<String> {
    let mut notices = Vec::new();
    for key in KEYS {
        if let (Usage::Ignored(reason), Some((name, _))) = (key.usage, environment.first(key.variables)) {
            notices.push(format!("{name} has no effect: {reason}"));
        }
    }
    let known = || KEYS.iter().flat_map(|key| key.variables).copied();
    for name in environment.names().filter(|name| name.starts_with("EMBEDDINGS_")) {
        if known().all(|known| known != name) {
            let nearest = nearest_name(name, known().filter(|known| known.starts_with("EMBEDDINGS_")));
            notices.push(format!(
                "{name} is not read; the nearest known variable is {}",
                nearest.unwrap_or("EMBEDDINGS_CONFIG_PATH")
            ));
        }
    }
    notices
}

/// Sets in the tree what variables set.
pub(super) fn insert_variables(tree: &mut Node, environment: &Environment) {
    for key in KEYS.iter().filter(|key| !key.path.is_empty()) {
        if let Some((name, value)) = environment.first(key.variables) {
            tree.insert(&key.names(), Node::scalar(value, Source::Variable(name)));
        }
    }
}
