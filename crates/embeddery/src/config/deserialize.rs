//! From the tree to the types of the sections. The type that is asked for decides how a text is read, so that a
//! variable, which is always text, and a value in a file are read alike. Errors know the path of the value.

use std::fmt::Display;

use embeddery_core::nearest_name;
use serde::{
    Deserializer,
    de::{
        DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{SeqDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};

use super::tree::{Node, Source, Value};

/// A value that is not what its section needs.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// Map keys and list indices that lead to the value, the innermost first.
    reversed_path: Vec<String>,
    pub(super) message: String,
    pub(super) kind: MismatchKind,
}

/// What a mismatch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MismatchKind {
    Value,
    UnknownKey,
    /// A key that must be there is not there; the path is that of its section.
    MissingKey,
}

impl Mismatch {
    fn below(mut self, name: &str) -> Self {
        self.reversed_path.push(name.to_owned());
        self
    }

    /// Map keys and list indices that lead to the value.
    pub(super) fn path(&self) -> Vec<String> {
        self.reversed_path.iter().rev().cloned().collect()
    }
}

impl serde::de::Error for Mismatch {
    fn custom<T: Display>(message: T) -> Self {
        Self { reversed_path: Vec::new(), message: message.to_string(), kind: MismatchKind::Value }
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
        let unknown = Self::custom(unknown_key(name, known)).below(name);
        Self { kind: MismatchKind::UnknownKey, ..unknown }
    }

    fn missing_field(name: &'static str) -> Self {
        let missing = Self::custom(format_args!("'{name}' is missing"));
        Self { kind: MismatchKind::MissingKey, ..missing }
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

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
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

impl Node {
    fn scalar_text(&self, due: &str) -> Result<&str, Mismatch> {
        self.text().ok_or_else(|| Mismatch::custom(format_args!("must be {due}")))
    }
}

macro_rules! whole_numbers {
    ($($method:ident => $visit:ident: $number:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            let text = self.scalar_text("a whole number")?;
            match text.trim().parse::<$number>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(Mismatch::custom(format_args!("'{text}' is not a whole number"))),
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
        deserialize_u8 => visit_u64: u64,
        deserialize_u16 => visit_u64: u64,
        deserialize_u32 => visit_u64: u64,
        deserialize_u64 => visit_u64: u64,
        deserialize_i8 => visit_i64: i64,
        deserialize_i16 => visit_i64: i64,
        deserialize_i32 => visit_i64: i64,
        deserialize_i64 => visit_i64: i64,
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
            Value::List(items) => visitor.visit_seq(Items { items, index: 0 }),
            Value::Null => visitor.visit_seq(Items { items: &[], index: 0 }),
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
            Value::Map(_) | Value::Null => {
                visitor.visit_map(Entries { entries: self.entries(), value: None })
            }
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
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.items.get(self.index) else { return Ok(None) };
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.below(&(self.index - 1).to_string()))
    }
}

struct Entries<'a> {
    entries: &'a [(String, Node)],
    value: Option<&'a (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((entry, rest)) = self.entries.split_first() else { return Ok(None) };
        (self.entries, self.value) = (rest, Some(entry));
        seed.deserialize(StringDeserializer::new(entry.0.clone())).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (name, node) = self.value.ok_or_else(|| Mismatch::custom("a value without a key"))?;
        seed.deserialize(node).map_err(|error| error.below(name))
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
}
