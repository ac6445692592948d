//! Filters on the metadata of documents. A filter is parsed once into a tree, and each store compiles the tree into its
//! own SQL. The rules are the same in every store:
//!
//! - A value is compared with values of its own type only: strings by code points, numbers by their exact value.
//! - A list matches if one of its elements does. Null, objects, and lists in lists are never equal to anything.
//! - A missing field matches only a negation: `$ne`, `$nin` and `$not`.

mod always;
mod parse;
mod simplify;

use std::fmt;

use serde_json::{Map, Value};

use crate::number::Number;

/// A condition on a document's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All conditions match. An empty list matches every document.
    And(Vec<Filter>),
    /// At least one condition matches.
    Or(Vec<Filter>),
    /// The condition does not match.
    Not(Box<Filter>),
    /// The field has one of these values.
    In(String, Vec<Scalar>),
    /// The field compares with a value. Strings are ordered by code points.
    Compare(String, Comparison, Scalar),
}

/// Operator of [`Filter::Compare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `$gt`
    Greater,
    /// `$gte`
    GreaterOrEqual,
    /// `$lt`
    Less,
    /// `$lte`
    LessOrEqual,
}

/// A value that filters compare with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A number with its exact value.
    Number(Number),
    /// True or false.
    Bool(bool),
}

/// A filter that is invalid, with the message for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(pub String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Filter {
    /// The filter that every document matches, for example `{}`.
    pub(crate) const fn always() -> Self {
        Self::And(Vec::new())
    }

    /// The filter that no document matches, for example `{"a": {"$in": []}}`.
    pub(crate) const fn never() -> Self {
        Self::Or(Vec::new())
    }

    /// Parses the JSON form of a filter, for example `{"year": {"$gte": 2020}}`, and simplifies it.
    pub fn parse(value: &Value) -> Result<Self, FilterError> {
        Ok(parse::parse(value)?.simplify())
    }

    /// Whether the simplified filter has no condition.
    pub fn is_unconditional(&self) -> bool {
        *self == Self::always()
    }

    /// Whether every document matches, whatever its metadata is. The search for a document that does not match is
    /// bounded. An extremely long filter for which it does not end counts as a filter that may not match.
    pub fn matches_every_document(&self) -> bool {
        always::is_always_true(self)
    }
}

impl Scalar {
    /// Converts a JSON value. Returns `None` for null, lists and objects, which filters do not see.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Number::from_json(number).map(Self::Number),
            Value::Bool(on) => Some(Self::Bool(*on)),
            _ => None,
        }
    }
}

/// Returns the values that filters see in metadata, each with its field. A list gives its elements.
pub(crate) fn visible_values(metadata: &Map<String, Value>) -> impl Iterator<Item = (&str, Scalar)> {
    metadata.iter().flat_map(|(field, value)| {
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            value => std::slice::from_ref(value),
        };
        elements.iter().filter_map(move |value| Some((field.as_str(), Scalar::from_json(value)?)))
    })
}
