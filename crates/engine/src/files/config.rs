//! `config.json`, read key by key: architectures use different keys for the same setting, and an error about an
//! unsupported value must name its key.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::json::{read, unsupported};
use crate::LoadError;

/// Maximum of any size. No model has a larger one.
const MAX_SIZE: usize = 1 << 24;
/// Maximum width of a product. Sums of eight-bit products would overflow beyond it.
pub(crate) const MAX_WIDTH: usize = 1 << 15;

/// A `config.json`, or an object inside it.
#[derive(Debug)]
pub(crate) struct Config {
    file: PathBuf,
    keys: Map<String, Value>,
}

impl Config {
    pub(crate) fn read(file: &Path) -> Result<Self, LoadError> {
        Ok(Self { file: file.to_path_buf(), keys: read(file)? })
    }

    /// The value of a key; `None` if it is absent or null.
    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The first of these keys that is present, or the first key if none is.
    pub(crate) fn first_present<'a>(&self, keys: [&'a str; 2]) -> &'a str {
        if self.has(keys[1]) && !self.has(keys[0]) { keys[1] } else { keys[0] }
    }

    /// A size of at least 1.
    pub(crate) fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.size_in(key, 1..=MAX_SIZE)
    }

    /// A size that is the width of a matrix product.
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
            None => Err(self.malformed(key, "is not a whole number of at least 0")),
        }
    }

    pub(crate) fn f64_or(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.malformed(key, "is not a number")),
        }
    }

    /// The epsilon that a norm adds to the variance.
    pub(crate) fn epsilon(&self, key: &str, default: f64) -> Result<f32, LoadError> {
        let epsilon = self.f64_or(key, default)?;
        if epsilon > 0.0 && epsilon < 1.0 {
            return Ok(epsilon as f32);
        }
        Err(self.unsupported(key, &epsilon.to_string(), "a number above 0 and below 1"))
    }

    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.malformed(key, "is not true or false")),
        }
    }

    pub(crate) fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, LoadError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.malformed(key, "is not a string")),
        }
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, LoadError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let strings = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
        strings.map(Some).ok_or_else(|| self.malformed(key, "is not a list of strings"))
    }

    /// The object under a key; empty if the key is absent.
    pub(crate) fn section(&self, key: &str) -> Result<Self, LoadError> {
        let keys = match self.value(key) {
            None => Map::new(),
            Some(Value::Object(keys)) => keys.clone(),
            Some(_) => return Err(self.malformed(key, "is not an object")),
        };
        Ok(Self { file: self.file.clone(), keys })
    }

    /// Rejects any value other than `expected`. An absent key is accepted.
    pub(crate) fn require_value(&self, key: &str, expected: &str) -> Result<(), LoadError> {
        match self.str_or(key, expected)? {
            found if found == expected => Ok(()),
            other => Err(self.unsupported(key, other, expected)),
        }
    }

    /// Rejects any value other than `expected`. An absent key is accepted.
    pub(crate) fn require_flag(&self, key: &str, expected: bool) -> Result<(), LoadError> {
        if self.bool_or(key, expected)? == expected {
            return Ok(());
        }
        Err(self.unsupported(key, &(!expected).to_string(), &expected.to_string()))
    }

    /// Rejects a key unless it is absent or null.
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
            expected: "a model configuration",
            reason: format!("'{key}' {reason}"),
        }
    }
}
