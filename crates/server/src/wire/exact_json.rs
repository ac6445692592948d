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
pub(crate) struct Exact<T>(Result<T, Fault>);

/// An object of which every number is checked.
pub(crate) type ExactObject = Exact<Map<String, Value>>;

/// Why a value is not read.
enum Fault {
    /// The value of a number would be lost. The path to it is `.a[2]`.
    LostNumber {
        path: String,
        number: String,
    },
    TooDeep,
}

/// Maximum levels of lists and maps, which is the limit of the JSON parser.
const MAX_LEVELS: usize = 127;

/// Maximum bytes that are read to find the path to a number. Each level reads what is inside of it again.
const MAX_SEARCHED_BYTES: usize = 4 << 20;

/// Maximum length of a path in a message.
const MAX_PATH_BYTES: usize = 200;

/// Maximum length of a number in a message.
const MAX_SHOWN_BYTES: usize = 40;

impl<T> Exact<T> {
    /// Returns the value of a field.
    ///
    /// # Errors
    /// Names the number whose value would be lost, and where it is.
    pub(crate) fn check(self, field: &str) -> Result<T, ApiError> {
        self.0.map_err(|fault| match fault {
            Fault::LostNumber { path, number } => {
                ApiError::invalid(format!("{field}{path}"), format!("{field}{path} is {}", problem(&number)))
            }
            Fault::TooDeep => ApiError::invalid(
                field.to_owned(),
                format!(
                    "{field} has more than {MAX_LEVELS} levels of lists and maps; send it with fewer levels"
                ),
            ),
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
        if is_too_deep(text) {
            return Ok(Self(Err(Fault::TooDeep)));
        }
        if let Some(number) = unrepresentable_number(text) {
            let path = path_to(number, text);
            return Ok(Self(Err(Fault::LostNumber { path, number: number.to_owned() })));
        }
        serde_json::from_str(text).map(|value| Self(Ok(value))).map_err(D::Error::custom)
    }
}

/// Returns whether a JSON text has more than [`MAX_LEVELS`] levels.
fn is_too_deep(text: &str) -> bool {
    let (mut level, mut is_in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_string => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            b'[' | b'{' if !is_in_string => level += 1,
            b']' | b'}' if !is_in_string => level = level.saturating_sub(1),
            _ => {}
        }
        if level > MAX_LEVELS {
            return true;
        }
    }
    false
}

/// Returns the path to a part of a JSON text, or its start if it is long.
fn path_to(part: &str, mut text: &str) -> String {
    let mut path = String::new();
    let holds = |raw: &RawValue| raw.get().as_bytes().as_ptr_range().contains(&part.as_ptr());
    let mut searched = text.len();
    while searched <= MAX_SEARCHED_BYTES && path.len() <= MAX_PATH_BYTES {
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
            return path;
        }
        searched += text.len();
    }
    path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    path + "…"
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
    fn a_value_has_a_limited_number_of_levels() {
        let nested = |levels: usize| format!(r#"{{"a":{}1e400{}}}"#, "[".repeat(levels), "]".repeat(levels));
        for levels in [MAX_LEVELS, 1000, 500_000] {
            assert!(fault(&nested(levels)).starts_with("metadata has more than 127 levels"), "{levels}");
        }
        let long = fault(&nested(MAX_LEVELS - 1));
        assert!(long.contains("…") && long.contains("1e400") && long.len() < 400, "{long}");
        let name = format!(r#"{{"{}":1e400}}"#, "n".repeat(100_000));
        assert!(fault(&name).len() < 400);
        let brackets = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(1000));
        assert!(serde_json::from_str::<ExactObject>(&brackets).unwrap().check("metadata").is_ok());
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
