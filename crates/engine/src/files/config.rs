//! `config.json`, read key by key: architectures write the same things under different names, and what a key says
//! must be refused by that key.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::json::{read, unsupported};
use crate::LoadError;

/// Sizes beyond this are no model's.
const MAX_SIZE: usize = 1 << 24;
/// Widths beyond this would overflow the sums of eight-bit products.
pub(crate) const MAX_WIDTH: usize = 1 << 15;

/// A model's `config.json`.
#[derive(Debug)]
pub(crate) struct Config {
    file: PathBuf,
    keys: Map<String, Value>,
}

impl Config {
    pub(super) fn read(file: &Path) -> Result<Self, LoadError> {
        Ok(Self { file: file.to_path_buf(), keys: read(file)? })
    }

    /// What a key says, unless that is `null`.
    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The first of these keys that is there, or the first.
    pub(crate) fn either<'a>(&self, keys: [&'a str; 2]) -> &'a str {
        if self.has(keys[1]) && !self.has(keys[0]) { keys[1] } else { keys[0] }
    }

    /// A size, from 1 on.
    pub(crate) fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.size_in(key, 1..=MAX_SIZE)
    }

    /// A size that is the width of a product.
    pub(crate) fn width(&self, key: &str) -> Result<usize, LoadError> {
        self.size_in(key, 1..=MAX_WIDTH)
    }

    pub(crate) fn size_in(&self, key: &str, allowed: RangeInclusive<usize>) -> Result<usize, LoadError> {
        match self.count(key)? {
            Some(size) if allowed.contains(&size) => Ok(size),
            Some(size) => {
                let allowed = format!("{} to {}", allowed.start(), allowed.end());
                Err(self.unsupported(key, &size.to_string(), &allowed))
            }
            None => Err(self.malformed(key, "is missing")),
        }
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize, LoadError> {
        if self.has(key) { self.size(key) } else { Ok(default) }
    }

    /// A size that may be 0.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize, LoadError> {
        self.count(key).map(|count| count.unwrap_or(default))
    }

    fn count(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64() {
            Some(count) => match usize::try_from(count) {
                Ok(count) if count <= MAX_SIZE => Ok(Some(count)),
                _ => Err(self.unsupported(key, &count.to_string(), "0 to 16777216")),
            },
            None => Err(self.malformed(key, "is not a whole number from 0 on")),
        }
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.malformed(key, "is not a number")),
        }
    }

    /// What a norm adds to a variance.
    pub(crate) fn epsilon(&self, key: &str, default: f64) -> Result<f32, LoadError> {
        let epsilon = self.number_or(key, default)?;
        if epsilon > 0.0 && epsilon < 1.0 {
            return Ok(epsilon as f32);
        }
        Err(self.unsupported(key, &epsilon.to_string(), "a number above 0 and below 1"))
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.malformed(key, "is not true or false")),
        }
    }

    pub(crate) fn text_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.malformed(key, "is not a text")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, LoadError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|texts| texts.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.malformed(key, "is not a list of texts"))
    }

    /// The keys below a key; none where that is not there.
    pub(crate) fn below(&self, key: &str) -> Result<Self, LoadError> {
        let keys = match self.value(key) {
            None => Map::new(),
            Some(Value::Object(keys)) => keys.clone(),
            Some(_) => return Err(self.malformed(key, "is not an object")),
        };
        Ok(Self { file: self.file.clone(), keys })
    }

    /// Refuses any other text than this one; a key that is not there says it.
    pub(crate) fn require_value(&self, key: &str, text: &str) -> Result<(), LoadError> {
        match self.text_or(key, text)? {
            found if found == text => Ok(()),
            other => Err(self.unsupported(key, other, text)),
        }
    }

    /// Refuses anything but this; a key that is not there says it.
    pub(crate) fn only_flag(&self, key: &str, flag: bool) -> Result<(), LoadError> {
        if self.flag_or(key, flag)? == flag {
            return Ok(());
        }
        Err(self.unsupported(key, &(!flag).to_string(), &flag.to_string()))
    }

    /// Refuses a key that says anything.
    pub(crate) fn require_absent(&self, key: &str) -> Result<(), LoadError> {
        match self.value(key) {
            None => Ok(()),
            Some(value) => Err(self.unsupported(key, &value.to_string(), "null")),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, found: &str, supported: &str) -> LoadError {
        unsupported(&self.file, key, found, supported)
    }

    fn malformed(&self, key: &str, reason: &str) -> LoadError {
        LoadError::Malformed {
            file: self.file.clone(),
            expected: "this configuration",
            reason: format!("'{key}' {reason}"),
        }
    }
}
