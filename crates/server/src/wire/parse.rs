//! Parses JSON into a request type. JSON that does not fit the type is reported with the path of the field, the
//! value found there and what to send instead.
//!
//! A valid request is deserialized straight from its bytes. Only when that fails is it parsed a second time, into a
//! [`Value`]: that tells broken JSON from a wrong field, keeps the last of duplicate keys, and gives the message the
//! value at fault.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::{
    exact_json,
    field::{Bounds, Object},
};
use crate::error::{ApiError, ErrorStyle};
use embeddery_core::nearest_name;
use embeddery_store::unrepresentable_number;

/// What is parsed, with its name in messages such as "the body is empty".
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) style: ErrorStyle,
}

/// Parses a JSON object.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8], source: Source) -> Result<T, ApiError> {
    let name = source.name;
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::not_json(format!("{name} is not UTF-8: the byte at {at} is not part of a character"))
    })?;
    if let Ok(Object(request)) = serde_json::from_str(text) {
        return Ok(request);
    }
    if text.trim().is_empty() {
        return Err(ApiError::not_json(format!("{name} is empty; send a JSON object")));
    }
    let value = serde_json::from_str(text)
        .map_err(|error| ApiError::not_json(format!("{name} is not JSON: {error}")))?;
    let request = from_value(value, source)?;
    // The value has no longer the digits of its numbers, so that the type cannot check them.
    match unrepresentable_number(text) {
        Some(number) => {
            Err(ApiError::not_json(format!("{name} has the number {}", exact_json::problem(number))))
        }
        None => Ok(request),
    }
}

/// Deserializes a JSON object that is parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(mut value: Value, source: Source) -> Result<T, ApiError> {
    if !value.is_object() {
        let message = format!("{} is {}; send a JSON object", source.name, describe(&value));
        return Err(ApiError::schema(source.style, None, message));
    }
    let mut fault = match deserialize(&value) {
        Ok(request) => return Ok(request),
        Err(fault) => fault,
    };
    // Deserializing `null` gives the type that the missing field expects.
    if let Problem::Missing(field) = &fault.problem {
        if let Some(parent) = fault.path.lookup_mut(&mut value) {
            parent.insert(field.clone(), Value::Null);
        }
        let path = fault.path.join(field);
        let expected = match deserialize::<T>(&value) {
            Err(Fault { path: found, problem: Problem::Expected(expected) }) if found == path => expected,
            _ => "a value".to_owned(),
        };
        fault = Fault { path, problem: Problem::Expected(expected) };
    }
    Err(fault.into_error(&value, source.style))
}

fn deserialize<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| Fault::new(FieldPath::new(error.path()), &error.inner().to_string()))
}

/// The first value of a request that does not match its type.
struct Fault {
    path: FieldPath,
    problem: Problem,
}

enum Problem {
    /// The type has no such field; these it has.
    Unknown(Vec<String>),
    /// A required field is absent.
    Missing(String),
    /// The value is of another type than this.
    Expected(String),
    /// The number is not "between 1 and 1000".
    OutOfRange(String),
}

impl Fault {
    /// Parses a message of serde. Only its first part quotes the request; its last part is a fixed text.
    fn new(mut path: FieldPath, message: &str) -> Self {
        let quoted = |list: &str| list.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        if let Some(field) = message.strip_prefix("missing field `") {
            return Self { path, problem: Problem::Missing(field.trim_end_matches('`').to_owned()) };
        }
        let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, "another value"));
        if found.starts_with("unknown field ") {
            return Self { path, problem: Problem::Unknown(quoted(expected)) };
        }
        if found.starts_with("unknown variant ") {
            let words: Vec<String> = quoted(expected).iter().map(|word| format!("\"{word}\"")).collect();
            return Self { path, problem: Problem::Expected(words.join(" or ")) };
        }
        if found.starts_with("invalid value") && expected.starts_with(Bounds::PREFIX) {
            return Self { path, problem: Problem::OutOfRange(expected.to_owned()) };
        }
        // A plain list of strings or numbers is named as a whole; `input` and `texts` have their own messages.
        let list = match expected {
            "a string" => Some("a list of strings"),
            "f32" => Some("a list of numbers"),
            _ => None,
        };
        let expected = match list {
            Some(list) if path.ends_in_list() => {
                path.0.pop();
                list
            }
            _ => plain(expected),
        };
        Self { path, problem: Problem::Expected(expected.to_owned()) }
    }

    fn into_error(self, root: &Value, style: ErrorStyle) -> ApiError {
        let (parent, name) = self.path.split();
        let found = self.path.lookup(root).unwrap_or(&Value::Null);
        let message = match &self.problem {
            Problem::OutOfRange(range) => {
                let message = format!("{}{name} is {found}; it must be {range}", prefix(&parent));
                return ApiError::invalid(self.path.to_string(), message);
            }
            Problem::Unknown(known) => format!("unknown field '{name}'; {}", hint(&name, known)),
            // `null` stands for an absent field, but an element of a list cannot be absent.
            Problem::Expected(expected) if found.is_null() && !self.path.ends_in_list() => {
                format!("{name} is missing; send {expected}")
            }
            Problem::Expected(expected) => format!("{name} is {}; send {expected}", describe(found)),
            Problem::Missing(field) => format!("{field} is missing"),
        };
        ApiError::schema(style, Some(self.path.to_string()), format!("{}{message}", prefix(&parent)))
    }
}

fn prefix(parent: &str) -> Cow<'_, str> {
    if parent.is_empty() { Cow::Borrowed("") } else { Cow::Owned(format!("{parent}: ")) }
}

/// The nearest known field, or all of them.
fn hint(unknown: &str, known: &[String]) -> String {
    match nearest_name(unknown, known.iter().map(String::as_str)) {
        Some(known) => format!("did you mean '{known}'?"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// The name of a type in errors, for the name that serde uses.
fn plain(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a map" => "an object",
        "a sequence" => "a list",
        "u32" | "u64" | "usize" => "a whole number",
        "a nonzero u32" | "a nonzero usize" => "a whole number of at least 1",
        other => other,
    }
}

/// A description of a value. A short text is quoted, because it is usually misspelt.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.len() <= 32 => format!("\"{text}\""),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Where a value is: `documents[3].metadata`.
#[derive(Clone, PartialEq)]
struct FieldPath(Vec<Step>);

#[derive(Clone, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
}

impl FieldPath {
    fn new(path: &Path) -> Self {
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self(steps.collect())
    }

    fn join(&self, field: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Field(field.to_owned()));
        Self(steps)
    }

    fn ends_in_list(&self) -> bool {
        matches!(self.0.last(), Some(Step::Index(_)))
    }

    fn lookup<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(root, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => value.get(index),
        })
    }

    fn lookup_mut<'a>(&self, root: &'a mut Value) -> Option<&'a mut Map<String, Value>> {
        let found = self.0.iter().try_fold(root, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Index(index) => value.get_mut(index),
        });
        found?.as_object_mut()
    }

    /// The object that holds the field, and the field with its indexes: `documents[3]` and `metadata`.
    fn split(&self) -> (String, String) {
        let field = self.0.iter().rposition(|step| matches!(step, Step::Field(_))).unwrap_or(0);
        let (parent, name) = self.0.split_at(field);
        (Self(parent.to_vec()).to_string(), Self(name.to_vec()).to_string())
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
