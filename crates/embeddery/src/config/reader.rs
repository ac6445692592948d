//! Reads the tree into the types of the sections, and collects what is wrong. A value with a problem is replaced by
//! its default and the reading goes on, so that all problems are reported together: an operator should not have to
//! start a service five times to learn of five mistakes.

use std::{collections::HashSet, fmt::Display, path::Path};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::{
    ConfigError,
    deserialize::Mismatch,
    tree::{Node, Source, Value},
};

/// The merged tree, and what is wrong with it.
pub(super) struct SettingReader {
    /// As it was set; for sources.
    tree: Node,
    /// The same, with defaults in place of wrong values.
    usable: Node,
    defaults: Node,
    /// What a problem calls the file.
    file: String,
    problems: Vec<String>,
}

impl SettingReader {
    pub(super) fn new(tree: Node, defaults: Node, file: String, problems: Vec<String>) -> Self {
        Self { usable: tree.clone(), tree, defaults, file, problems }
    }

    /// Reads the keys that `T` has.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, ConfigError> {
        // Sections that a wrong value was taken out of. That it is missing then is no other problem.
        let mut reduced: HashSet<Vec<String>> = HashSet::new();
        loop {
            let error = match serde_path_to_error::deserialize(&self.usable) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let mut path = names(error.path());
            match error.into_inner() {
                Mismatch::MissingKey(_) if reduced.contains(&path) => {}
                unknown @ Mismatch::UnknownKey { .. } => {
                    if let Mismatch::UnknownKey { name, .. } = &unknown
                        && path.last() != Some(name)
                    {
                        path.push(name.clone());
                    }
                    let place = place(self.usable.get(&path), &self.file);
                    self.problems.push(format!("{place}{unknown}"));
                }
                mismatch => {
                    let (key, node) = key_of(&self.usable, &path);
                    self.problems.push(format!("{}{mismatch}", named(&key, node, &self.file)));
                }
            }
            let Some(wrong) = self.usable.remove(&path) else {
                return Err(ConfigError(std::mem::take(&mut self.problems)));
            };
            match self.defaults.get(&path) {
                Some(default) if wrong.source != default.source => self.usable.insert(&path, default.clone()),
                _ => {
                    reduced.insert(path[..path.len() - 1].to_vec());
                }
            }
        }
    }

    /// A problem with a key's value.
    pub(super) fn problem_at(&mut self, key: &str, message: impl Display) {
        let node = self.tree.find(key);
        // A key that is absent has the place of its section.
        let section = key.rsplit_once('.').and_then(|(section, _)| self.tree.find(section));
        let place = if node.is_none() { place(section, &self.file) } else { String::new() };
        self.problems.push(format!("{place}{}{message}", named(key, node, &self.file)));
    }

    /// A problem that names the setting itself.
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// The bytes of the file that a key names.
    pub(super) fn file_at(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        let problem = match std::fs::read(path) {
            Ok(bytes) => return Some(bytes),
            Err(error) => format!("{} cannot be read ({error})", path.display()),
        };
        self.problem_at(key, problem);
        None
    }

    /// Whether a variable sets the key.
    pub(super) fn is_from_variable(&self, key: &str) -> bool {
        self.tree.find(key).is_some_and(|node| matches!(node.source, Source::Variable(_)))
    }

    /// Whether anything but the defaults sets the key.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.tree.find(key).is_some_and(|node| !matches!(node.source, Source::Default { .. }))
    }

    /// `value`, unless there were problems.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError(self.problems)) }
    }
}

/// The place of a value in the file, and nothing of a value that is elsewhere.
pub(super) fn place(node: Option<&Node>, file: &str) -> String {
    match node.map(|node| node.source) {
        Some(Source::File { line, column }) => format!("{file}, line {line} column {column}: "),
        _ => String::new(),
    }
}

/// What set a value: a place and a key of the file, a variable, a flag; else the key.
fn named(key: &str, node: Option<&Node>, file: &str) -> String {
    match node.map(|node| node.source) {
        Some(Source::Variable(name) | Source::Flag(name)) => format!("{name}: "),
        _ if key.is_empty() => place(node, file),
        _ => format!("{}{key}: ", place(node, file)),
    }
}

/// The key that a path leads to; what is in a list has the list's.
fn key_of<'a>(tree: &'a Node, path: &[String]) -> (String, Option<&'a Node>) {
    let mut node = tree;
    let mut names: Vec<&str> = Vec::new();
    for name in path {
        if matches!(node.value, Value::List(_)) {
            break;
        }
        let Some(child) = node.get(&[name]) else { break };
        names.push(name);
        node = child;
    }
    (names.join("."), Some(node))
}

fn names(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}
