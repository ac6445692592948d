//! From the tree to the types of the sections. The type that is asked for decides how a text is read, so that a
//! variable, which is always text, and a value in a file are read alike. Errors know the path of the value.

use std::fmt::Display;

use embeddery_core::nearest_name;
use serde::{
    Deserializer,
    de::{
        Error as _, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};

use super::tree::{Node, Source, Value};

/// Why a value is not what its section needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("{0}")]
    Value(String),
    #[error("{}", unknown_key(name, known))]
    UnknownKey { name: String, known: &'static [&'static str] },
    /// A key that must be there is not there.
    #[error("'{0}' is missing")]
    MissingKey(&'static str),
}

impl serde::de::Error for Mismatch {
    fn custom<T: Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        let known = match known.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        Self::custom(format_args!("'{name}' is unknown; write {known}"))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownKey { name: name.to_owned(), known }
    }

    fn missing_field(name: &'static str) -> Self {
        Self::MissingKey(name)
    }
}

/// What is said of a key that does not exist.
pub(super) fn unknown_key(name: &str, known: &[&str]) -> String {
    match nearest_name(name, known.iter().copied()) {
        Some(nearest) => format!("unknown key '{name}'; did you mean '{nearest}'?"),
        None => format!("unknown key '{name}'; known here are {}", known.join(", ")),
    }
}

/// What people write for yes and no.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// A whole number as YAML writes it: `512`, `33_554_432`, `0x1ff`, `0o17` or `0b11`.
pub(super) fn parse_whole_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.get(..2) {
        Some("0x" | "0X") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        _ => (text.strip_prefix('+').unwrap_or(text), 10),
    };
    // An underscore separates digits; it neither begins nor ends the number.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) || digits.ends_with('_') {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

impl Node {
    fn scalar_text(&self, due: &str) -> Result<&str, Mismatch> {
        self.text().ok_or_else(|| Mismatch::custom(format_args!("must be {due}")))
    }
}

macro_rules! whole_numbers {
    ($($method:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            let text = self.scalar_text("a whole number")?;
            match parse_whole_number(text) {
                Some(number) => visitor.visit_u64(number),
                None => Err(Mismatch::custom(format_args!("'{text}' is not a whole number"))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, plain } => {
                let text = text.as_str();
                match (plain, text, text.parse::<u64>(), text.parse::<f64>()) {
                    (true, "true" | "false", ..) => visitor.visit_bool(text == "true"),
                    (true, _, Ok(number), _) => visitor.visit_u64(number),
                    (true, _, _, Ok(number)) => visitor.visit_f64(number),
                    _ => visitor.visit_borrowed_str(text),
                }
            }
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let text = self.scalar_text("true or false")?;
        match parse_bool(text) {
            Some(on) => visitor.visit_bool(on),
            None => Err(Mismatch::custom(format_args!("'{text}' is neither on nor off; write 1 or 0"))),
        }
    }

    whole_numbers! {
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let text = self.scalar_text("a number")?;
        match text.trim().parse() {
            Ok(number) => visitor.visit_f64(number),
            Err(_) => Err(Mismatch::custom(format_args!("'{text}' is not a number"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_borrowed_str(self.scalar_text("a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_enum(IntoDeserializer::<Mismatch>::into_deserializer(self.scalar_text("a text")?))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Self>())),
            // A variable has a list as text, separated by commas.
            Value::Scalar { text, .. } if matches!(self.source, Source::Variable(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                let items = items.map(|item| StringDeserializer::<Mismatch>::new(item.to_owned()));
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            _ => Err(Mismatch::custom("must be a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            Value::Map(_) | Value::Null => visitor.visit_map(MapDeserializer::new(
                self.entries().iter().map(|(name, node)| (name.as_str(), node)),
            )),
            _ => Err(Mismatch::custom("must be a section: keys with values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no() {
        assert_eq!(
            ["on", "TRUE", "0", "No", "maybe"].map(parse_bool),
            [Some(true), Some(true), Some(false), Some(false), None]
        );
    }

    #[test]
    fn whole_numbers_are_written_as_in_yaml() {
        let same = [
            ("512", 512),
            (" 33_554_432 ", 33_554_432),
            ("0x1ff", 511),
            ("0o17", 15),
            ("0b11", 3),
            ("+7", 7),
        ];
        for (text, number) in same {
            assert_eq!(parse_whole_number(text), Some(number), "{text}");
        }
        for text in ["", "-1", "1.5", "0x", "0xg", "_1", "1_", "1e3", "ten"] {
            assert_eq!(parse_whole_number(text), None, "{text}");
        }
        assert_eq!((parse_bool("y"), parse_bool("N"), parse_bool("si")), (Some(true), Some(false), None));
    }
}
