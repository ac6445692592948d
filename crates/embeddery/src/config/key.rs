//! One row of the table of keys, and how a row relates to a path in a file.

use embeddery_core::ProviderKind;

/// What is known of one key, or of a section, besides its default value and the type of its field.
#[derive(Debug)]
pub(super) struct Key {
    /// The names that lead to the key, joined by dots; `*` stands for any one name. Empty: a variable without a key.
    pub(super) path: &'static str,
    /// Environment variables that set the key. The first that is set wins.
    pub(super) variables: &'static [&'static str],
    /// How the key is used.
    pub(super) usage: Usage,
    /// Whether a running process takes up a change; `None`: as the section above says.
    pub(super) live: Option<bool>,
    /// Whether the value must not be shown.
    pub(super) secret: bool,
    /// Whether a value replaces the default as a whole, not key by key.
    pub(super) replaces_default: bool,
    /// Providers whose models do not use the key.
    pub(super) unused_by: &'static [ProviderKind],
}

/// How a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// A section reads it, from the file and from its variables.
    Read,
    /// A section reads it from its variables; a file cannot set it.
    EnvironmentOnly,
    /// Another name of this key, for a file.
    Alias(&'static str),
    /// Accepted without effect, for this reason. Without a reason nothing is logged.
    Ignored(&'static str),
    /// As `Ignored` where the value is a list.
    IgnoredList(&'static str),
}

/// How a path relates to the key of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// It is the key.
    Same,
    /// It is a section that the key is in.
    Above,
    /// It is inside the key's value.
    Below,
    /// Neither.
    Apart,
}

/// A row for a key that a section reads.
pub(super) const fn key(path: &'static str) -> Key {
    Key {
        path,
        variables: &[],
        usage: Usage::Read,
        live: None,
        secret: false,
        replaces_default: false,
        unused_by: &[],
    }
}

/// A row for a value that only the environment can set; the path is that of its field.
pub(super) const fn environment_only(path: &'static str, variables: &'static [&'static str]) -> Key {
    Key { usage: Usage::EnvironmentOnly, ..key(path).variables(variables) }
}

/// A row for another name of a key.
pub(super) const fn alias(path: &'static str, target: &'static str) -> Key {
    Key { usage: Usage::Alias(target), ..key(path) }
}

/// A row for a key without effect.
pub(super) const fn ignored(path: &'static str, reason: &'static str) -> Key {
    Key { usage: Usage::Ignored(reason), ..key(path) }
}

impl Key {
    pub(super) const fn variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    /// A running process takes up a change of this key and of those below it.
    pub(super) const fn live(self) -> Self {
        Self { live: Some(true), ..self }
    }

    /// A change of this key holds after a restart, unlike its section.
    pub(super) const fn restart(self) -> Self {
        Self { live: Some(false), ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) const fn replaces_default(self) -> Self {
        Self { replaces_default: true, ..self }
    }

    pub(super) const fn unused_by(self, unused_by: &'static [ProviderKind]) -> Self {
        Self { unused_by, ..self }
    }

    pub(super) const fn ignored_list(self, reason: &'static str) -> Self {
        Self { usage: Usage::IgnoredList(reason), ..self }
    }

    /// How `path` relates to this key.
    pub(super) fn relation(&self, path: &[&str]) -> Relation {
        let mut names = self.path.split('.').filter(|name| !name.is_empty());
        for name in path {
            match names.next() {
                None => return Relation::Below,
                Some(expected) if expected == "*" || expected == *name => {}
                Some(_) => return Relation::Apart,
            }
        }
        if names.next().is_none() { Relation::Same } else { Relation::Above }
    }

    /// The name that follows `path` in this key, when the key is below `path`.
    pub(super) fn name_after(&self, path: &[&str]) -> Option<&'static str> {
        (self.relation(path) == Relation::Above).then(|| self.path.split('.').nth(path.len())).flatten()
    }

    /// The path, name by name. Empty for a variable without a key.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.path.split('.').filter(|name| !name.is_empty()).collect()
    }
}
