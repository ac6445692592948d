//! The configuration as one tree of values, each of which knows where it was set. Scalars stay text until a section
//! asks for a type (`deserialize`): a key `0123` or a revision `1e10` does not become a number on the way.

use std::{fmt, mem};

/// A value and where it was set.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// A value as it is written.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    /// `plain`: without quotes, so that it may be a number or a switch.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Where a value was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default { line: usize },
    File { line: usize, column: usize },
    Variable(&'static str),
    Flag(&'static str),
}

impl Node {
    /// What a variable or a flag sets.
    pub(super) fn scalar(text: impl Into<String>, source: Source) -> Self {
        Self { value: Value::Scalar { text: text.into(), plain: true }, source }
    }

    pub(super) fn empty_map(source: Source) -> Self {
        Self { value: Value::Map(Vec::new()), source }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            Value::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node),
            Value::List(items) => items.get_mut(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The value at a path of map keys and list indices.
    pub(super) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.child(name.as_ref()))
    }

    /// The value of a dotted key, whose names may have dots of their own.
    pub(super) fn find(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find_map(|(name, node)| {
            let rest = key.strip_prefix(name.as_str())?;
            match rest.strip_prefix('.') {
                Some(rest) => node.find(rest),
                None => rest.is_empty().then_some(node),
            }
        })
    }

    /// Sets a value, and makes the maps above it. Does nothing where something else than a map is above it.
    pub(super) fn insert<S: AsRef<str>>(&mut self, path: &[S], value: Self) {
        let [name, rest @ ..] = path else {
            *self = value;
            return;
        };
        if let Value::Map(entries) = &mut self.value {
            let name = name.as_ref();
            let index = entries.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
                entries.push((name.to_owned(), Self::empty_map(value.source)));
                entries.len() - 1
            });
            let child = &mut entries[index].1;
            if matches!(child.value, Value::Null) && !rest.is_empty() {
                child.value = Value::Map(Vec::new());
            }
            child.insert(rest, value);
        }
    }

    /// Takes a value out.
    pub(super) fn remove<S: AsRef<str>>(&mut self, path: &[S]) -> Option<Self> {
        let (last, above) = path.split_last()?;
        let parent = above.iter().try_fold(self, |node, name| node.child_mut(name.as_ref()))?;
        match &mut parent.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|(key, _)| key == last.as_ref())?;
                Some(entries.remove(index).1)
            }
            Value::List(items) => {
                let index = last.as_ref().parse().ok().filter(|index| *index < items.len())?;
                Some(items.remove(index))
            }
            _ => None,
        }
    }

    /// Puts `over` over these values: maps key by key, everything else as a whole, and as a whole also maps at paths
    /// for which `whole` holds. Null sets nothing.
    pub(super) fn merge(&mut self, over: Self, whole: &impl Fn(&[&str]) -> bool) {
        self.merge_at(over, whole, &[]);
    }

    fn merge_at(&mut self, over: Self, whole: &impl Fn(&[&str]) -> bool, path: &[&str]) {
        match (&mut self.value, over.value) {
            (_, Value::Null) => {}
            (Value::Map(entries), Value::Map(new)) if !whole(path) => {
                self.source = over.source;
                for (name, node) in new {
                    match entries.iter_mut().find(|(key, _)| *key == name) {
                        Some((_, old)) => old.merge_at(node, whole, &[path, &[name.as_str()]].concat()),
                        None => entries.push((name, node)),
                    }
                }
            }
            (value, new) => {
                *value = new;
                self.source = over.source;
            }
        }
    }

    /// Takes out the entries of a map for which `keep` does not hold.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str, &mut Self) -> bool) {
        if let Value::Map(entries) = &mut self.value {
            *entries = mem::take(entries)
                .into_iter()
                .filter_map(|(name, mut node)| keep(&name, &mut node).then_some((name, node)))
                .collect();
        }
    }
}

/// Values may be secrets: only names are shown.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("null"),
            Value::Scalar { .. } => f.write_str("…"),
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(entries) => {
                f.debug_map().entries(entries.iter().map(|(name, node)| (name, node))).finish()
            }
        }
    }
}
