//! Metadata as PostgreSQL stores it. A column of the type `jsonb` has numbers as decimals, without exponents and without a
//! negative zero. The text that is written here is read back as the same numbers to the bit.

use std::io;

use serde::Serialize as _;
use serde_json::{
    Map, Value,
    ser::{CompactFormatter, Formatter, Serializer},
};

use crate::{StoreError, json_numbers::number_tokens, number::needs_all_digits};

/// A negative zero: the column keeps the number of decimals. No other float has this form.
const NEGATIVE_ZERO: &str = "0.00";

/// Writes metadata as the text of a `jsonb` value.
pub(super) fn to_text(metadata: &Map<String, Value>) -> Result<String, StoreError> {
    let mut text = Vec::with_capacity(128);
    metadata
        .serialize(&mut Serializer::with_formatter(&mut text, DecimalFormatter))
        .map_err(StoreError::internal)?;
    String::from_utf8(text).map_err(StoreError::internal)
}

/// Reads metadata from the text of a `jsonb` value.
pub(super) fn from_text(text: &str) -> Result<Map<String, Value>, StoreError> {
    let unreadable = |error: serde_json::Error| {
        StoreError::internal(format!("the stored metadata of a document cannot be read: {error}"))
    };
    if !text.contains(NEGATIVE_ZERO) {
        return serde_json::from_str(text).map_err(unreadable);
    }
    let (mut restored, mut copied) = (String::with_capacity(text.len()), 0);
    for token in number_tokens(text).filter(|token| &text[token.clone()] == NEGATIVE_ZERO) {
        restored.push_str(&text[copied..token.start]);
        restored.push_str("-0.0");
        copied = token.end;
    }
    restored.push_str(&text[copied..]);
    serde_json::from_str(&restored).map_err(unreadable)
}

/// Returns the decimal form of a float. A whole number has all digits of its value, and one decimal, by which it is read
/// as a float again.
pub(super) fn number_text(float: f64) -> String {
    if float == 0.0 && float.is_sign_negative() {
        NEGATIVE_ZERO.to_owned()
    } else if needs_all_digits(float) {
        format!("{float:.1}")
    } else {
        Value::from(float).to_string()
    }
}

/// Writes floats as [`number_text`] does.
struct DecimalFormatter;

impl Formatter for DecimalFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, float: f64) -> io::Result<()> {
        if float == 0.0 || needs_all_digits(float) {
            writer.write_all(number_text(float).as_bytes())
        } else {
            CompactFormatter.write_f64(writer, float)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_the_digits_of_their_values() {
        let metadata = json!({"a": [0, 0.0, -0.0, 1.5, 1e16, 5e-324, -1e20, u64::MAX]});
        let text = to_text(metadata.as_object().unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"a":[0,0.0,0.00,1.5,10000000000000000.0,5e-324,-100000000000000000000.0,18446744073709551615]}"#
        );
        let read = Value::Object(from_text(&text).unwrap());
        assert_eq!(read.to_string(), metadata.to_string(), "signs and types are the same");
        let quoted = r#"{"0.00":"0.00","b":10.001}"#;
        assert_eq!(Value::Object(from_text(quoted).unwrap()).to_string(), quoted);
    }
}
