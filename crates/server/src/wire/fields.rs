//! Reads a JSON object field by field, so that an error can say which field, what it is, and what was due. A
//! field that nobody asked for is refused with the nearest known one: a typo must not be ignored.

use std::num::NonZeroUsize;

use serde_json::{Map, Value};

use crate::error::{ApiError, Dialect};

/// The fields of a body that have not been read yet.
pub(crate) struct Fields {
    map: Map<String, Value>,
    known: Vec<&'static str>,
    dialect: Dialect,
}

impl Fields {
    pub(crate) fn new(map: Map<String, Value>, dialect: Dialect) -> Self {
        Self { map, known: Vec::new(), dialect }
    }

    /// A field's value; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mismatch(name, &other, "a string")),
        }
    }

    pub(crate) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(other) => Err(self.mismatch(name, &other, "true or false")),
        }
    }

    /// A whole number of at least 1.
    pub(crate) fn count(&mut self, name: &'static str) -> Result<Option<NonZeroUsize>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).and_then(NonZeroUsize::new);
        count.map(Some).ok_or_else(|| self.mismatch(name, &value, "a whole number of at least 1"))
    }

    /// A whole number within bounds.
    pub(crate) fn bounded(
        &mut self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let (least, most) = (bounds.start(), bounds.end());
        let number = match &value {
            Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            other => return Err(self.mismatch(name, other, "a whole number")),
        };
        number.filter(|number| bounds.contains(number)).map(Some).ok_or_else(|| {
            ApiError::invalid(name, format!("{name} is {value}; it must be between {least} and {most}"))
        })
    }

    /// An object, absent or not.
    pub(crate) fn object(&mut self, name: &'static str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.mismatch(name, &other, "an object")),
        }
    }

    /// The fields of a part of the body, read by the same rules.
    pub(crate) fn part(&self, map: Map<String, Value>) -> Self {
        Self::new(map, self.dialect)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let chosen = value.as_str().and_then(|word| choices.iter().find(|(choice, _)| *choice == word));
        match chosen {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(self.mismatch(name, &value, &words.join(" or ")))
            }
        }
    }

    /// Refuses what is left.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let Some(unknown) = self.map.keys().next() else { return Ok(()) };
        let hint = match embeddery_core::nearest_name(unknown, self.known.iter().copied()) {
            Some(known) => format!("did you mean '{known}'?"),
            None => format!("known are {}", self.known.join(", ")),
        };
        Err(self.unfit(Some(unknown.clone()), format!("unknown field '{unknown}'; {hint}")))
    }

    /// The field is of the wrong kind.
    pub(crate) fn mismatch(&self, name: &str, found: &Value, due: &str) -> ApiError {
        self.unfit(Some(name.to_owned()), format!("{name} is {}, {due} is due", kind(found)))
    }

    /// The body does not fit the schema.
    pub(crate) fn unfit(&self, param: Option<String>, message: String) -> ApiError {
        ApiError::schema(self.dialect, param, message)
    }
}

/// What a value is, in words; short texts are shown, because most often they are a typo.
pub(crate) fn kind(value: &Value) -> String {
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
