//! The field `input`: a text, texts, token ids, or lists of token ids; never a mixture. It is deserialized in one
//! pass, without a `serde_json::Value`, because it is nearly the whole body.

use std::{fmt, sync::Arc};

use embeddery_core::Input;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::OneOfBuilder},
};

use crate::{Settings, error::ApiError};

/// What to embed: a text, several texts, or the same as token ids.
pub(crate) enum InputField {
    /// A text, or the token ids of one. Messages call it `input`.
    One(Input),
    /// A list of either. Messages call the elements `input[0]`, `input[1]`, ….
    Many(Vec<Input>),
}

impl InputField {
    /// Checks the number of inputs and the size of each.
    pub(crate) fn check(self, settings: &Settings) -> Result<Arc<[Input]>, ApiError> {
        let inputs = match self {
            Self::One(input) => return Ok(Arc::new([check_input(&"input", input, settings)?])),
            Self::Many(inputs) => inputs,
        };
        if inputs.is_empty() {
            return Err(ApiError::invalid("input", "input is an empty list; send at least one text"));
        }
        check_all("input", inputs, settings)
    }
}

/// Checks a list of inputs that is not empty.
pub(crate) fn check_all(
    field: &str,
    inputs: Vec<Input>,
    settings: &Settings,
) -> Result<Arc<[Input]>, ApiError> {
    if inputs.len() > settings.max_inputs {
        let message = format!(
            "{field} has {} entries; the limit is {}; send several requests",
            inputs.len(),
            settings.max_inputs
        );
        return Err(ApiError::invalid(field, message));
    }
    let check = |(index, input)| check_input(&format_args!("{field}[{index}]"), input, settings);
    inputs.into_iter().enumerate().map(check).collect()
}

/// `name` is the name of the input in errors. It is formatted only for an error.
fn check_input(name: &dyn fmt::Display, input: Input, settings: &Settings) -> Result<Input, ApiError> {
    let invalid = |message: String| Err(ApiError::invalid(name.to_string(), message));
    let limit = settings.text_limit;
    match &input {
        Input::Text(text) if text.trim().is_empty() => {
            invalid(format!("{name} is blank; omit it or send a text"))
        }
        Input::Text(text) if text.len() > limit => {
            invalid(format!("{name} has {} bytes; the limit is {limit}; split it", text.len()))
        }
        Input::Tokens(ids) if ids.is_empty() => invalid(format!("{name} is an empty list; omit it")),
        // A token is seldom shorter than a byte of text.
        Input::Tokens(ids) if ids.len() > limit => {
            invalid(format!("{name} has {} token ids; the limit is {limit}; split it", ids.len()))
        }
        Input::Text(_) | Input::Tokens(_) => Ok(input),
    }
}

impl<'de> Deserialize<'de> for InputField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;

        impl<'de> Visitor<'de> for InputVisitor {
            type Value = InputField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<InputField, E> {
                Ok(InputField::One(Input::Text(text.into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InputField, A::Error> {
                let first = match list.next_element_seed(Kind::Any)? {
                    None => return Ok(InputField::Many(Vec::new())),
                    Some(Element::Token(first)) => {
                        return Ok(InputField::One(Input::Tokens(tokens(vec![first], list)?)));
                    }
                    Some(Element::Input(first)) => first,
                };
                let kind = match &first {
                    Input::Text(_) => Kind::Text,
                    Input::Tokens(_) => Kind::TokenList,
                };
                let mut inputs = vec![first];
                while let Some(element) = list.next_element_seed(kind)? {
                    if let Element::Input(input) = element {
                        inputs.push(input);
                    }
                }
                Ok(InputField::Many(inputs))
            }
        }

        deserializer.deserialize_any(InputVisitor)
    }
}

/// A text of the field `texts`.
pub(crate) struct TextField(pub(crate) Input);

impl<'de> Deserialize<'de> for TextField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Kind::Text.deserialize(deserializer)? {
            Element::Input(input) => Ok(Self(input)),
            Element::Token(_) => Err(D::Error::custom("a token id")),
        }
    }
}

/// The rest of a list of token ids that begins with `ids`.
fn tokens<'de, A: SeqAccess<'de>>(mut ids: Vec<u32>, mut list: A) -> Result<Arc<[u32]>, A::Error> {
    while let Some(element) = list.next_element_seed(Kind::Token)? {
        if let Element::Token(id) = element {
            ids.push(id);
        }
    }
    Ok(ids.into())
}

/// An element of `input`.
enum Element {
    Input(Input),
    Token(u32),
}

/// What an element must be: the first may be anything, the others are like it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Any,
    Text,
    Token,
    TokenList,
}

impl Kind {
    fn allows(self, kind: Self) -> bool {
        self == Self::Any || self == kind
    }
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Element;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Kind {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "a text, a token id or a list of token ids",
            Self::Text => "a text",
            Self::Token => "a token id",
            Self::TokenList => "a list of token ids",
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        if self.allows(Self::Text) {
            return Ok(Element::Input(Input::Text(text.into())));
        }
        Err(E::invalid_type(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Element, E> {
        match u32::try_from(number) {
            Ok(id) if self.allows(Self::Token) => Ok(Element::Token(id)),
            _ => Err(E::invalid_type(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
        if self.allows(Self::TokenList) {
            return Ok(Element::Input(Input::Tokens(tokens(Vec::new(), list)?)));
        }
        Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self))
    }
}

impl ToSchema for InputField {}

impl PartialSchema for InputField {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some("A text, several texts, or the same as token ids."))
            .item(String::schema())
            .item(Vec::<String>::schema())
            .item(Vec::<u32>::schema())
            .item(Vec::<Vec<u32>>::schema())
            .into()
    }
}
