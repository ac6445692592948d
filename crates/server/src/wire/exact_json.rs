//! JSON values of requests whose numbers are kept exactly: metadata and filters. A JSON parser rounds an integer of more
//! than 64 bits to a float without an error, so such a number is looked for in the text.

use std::{collections::BTreeMap, fmt::Write as _};

use embeddery_store::unrepresentable_number;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, Unexpected},
};
use serde_json::{Map, Value, value::RawValue};

use crate::error::ApiError;

/// A value of which every number is checked. `T` is [`Value`], or [`Map`] for an object.
pub(crate) struct Exact<T>(Result<T, LostNumber>);

/// An object of which every number is checked.
pub(crate) type ExactObject = Exact<Map<String, Value>>;

/// A number whose value would be lost.
struct LostNumber {
    /// The path to it: `.a[2]`.
    path: String,
    number: String,
}

/// Maximum size of a text in which the path to a number is looked for.
const MAX_SEARCHED_BYTES: usize = 1 << 20;

/// Maximum length of a number in a message.
const MAX_SHOWN_BYTES: usize = 40;

impl<T> Exact<T> {
    /// Returns the value of a field.
    ///
    /// # Errors
    /// Names the number whose value would be lost, and where it is.
    pub(crate) fn check(self, field: &str) -> Result<T, ApiError> {
        self.0.map_err(|LostNumber { path, number }| {
            ApiError::invalid(format!("{field}{path}"), format!("{field}{path} is {}", problem(&number)))
        })
    }
}

/// What is wrong with a number whose value would be lost, and what to do.
pub(crate) fn problem(number: &str) -> String {
    let shown = match number.get(..MAX_SHOWN_BYTES) {
        Some(start) => format!("{start}… ({} digits)", number.len()),
        None => number.to_owned(),
    };
    let reason = if number.contains(['.', 'e', 'E']) {
        "which no floating-point number of 64 bits can hold"
    } else {
        "an integer beyond 64 bits, which would be rounded"
    };
    format!("{shown}, {reason}; send it as a string")
}

/// A type that [`Exact`] reads.
pub(crate) trait FromText: DeserializeOwned {
    /// What JSON text must be, if it is not of this type.
    fn mismatch(text: &str) -> Option<&'static str>;
}

impl FromText for Value {
    fn mismatch(_: &str) -> Option<&'static str> {
        None
    }
}

impl FromText for Map<String, Value> {
    fn mismatch(text: &str) -> Option<&'static str> {
        (!text.starts_with('{')).then_some("a map")
    }
}

impl<'de, T: FromText> Deserialize<'de> for Exact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        if let Some(expected) = T::mismatch(text) {
            return Err(D::Error::invalid_type(Unexpected::Other("value"), &expected));
        }
        // This is not an error of the deserializer, because the value would be parsed again, without the number's digits.
        if let Some(number) = unrepresentable_number(text) {
            return Ok(Self(Err(LostNumber { path: path_to(number, text), number: number.to_owned() })));
        }
        serde_json::from_str(text).map(|value| Self(Ok(value))).map_err(D::Error::custom)
    }
}

/// Returns the path to a part of a JSON text.
fn path_to(part: &str, mut text: &str) -> String {
    let mut path = String::new();
    let holds = |raw: &RawValue| raw.get().as_bytes().as_ptr_range().contains(&part.as_ptr());
    while text.len() <= MAX_SEARCHED_BYTES {
        if let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text)
            && let Some((name, raw)) = fields.into_iter().find(|(_, raw)| holds(raw))
        {
            let _ = write!(path, ".{name}");
            text = raw.get();
        } else if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text)
            && let Some((index, raw)) = elements.into_iter().enumerate().find(|(_, raw)| holds(raw))
        {
            let _ = write!(path, "[{index}]");
            text = raw.get();
        } else {
            break;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let exact: ExactObject = serde_json::from_str(text).unwrap();
        exact.check("metadata").unwrap_err().to_string()
    }

    #[test]
    fn a_number_whose_value_would_be_lost_is_named_with_its_path() {
        assert_eq!(
            fault(r#"{"a": 1, "b": {"c": [0, 18446744073709551617]}}"#),
            "metadata.b.c[1] is 18446744073709551617, an integer beyond 64 bits, which would be rounded; send it as a string"
        );
        assert!(
            fault(r#"{"a": -1e400}"#).starts_with("metadata.a is -1e400, which no floating-point number")
        );
        let long = format!(r#"{{"a": {}}}"#, "9".repeat(500));
        assert!(fault(&long).len() < 200 && fault(&long).contains("(500 digits)"), "{}", fault(&long));
    }

    #[test]
    fn other_values_are_read_as_they_are() {
        let text = r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":0.30000000000000004,"d":{"e":[null,true]}}"#;
        let exact: ExactObject = serde_json::from_str(text).unwrap();
        let object = exact.check("metadata").unwrap();
        assert_eq!(Value::Object(object).to_string(), text);
        let from_value: Exact<Value> = serde_json::from_value(serde_json::json!([1.5])).unwrap();
        assert_eq!(from_value.check("filter").unwrap(), serde_json::json!([1.5]));
        assert!(
            serde_json::from_str::<ExactObject>("[]")
                .is_err_and(|error| error.to_string().contains("expected a map"))
        );
    }
}
