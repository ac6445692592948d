//! The field `input`: a text, texts, token ids, or lists of token ids; never a mixture.

use std::sync::Arc;

use embeddery_core::Input;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{Fields, kind};
use crate::{Settings, error::ApiError};

/// A text, several texts, or the same as token ids.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the documentation's picture of `input`")]
pub(crate) enum InputForms {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// Reads the field.
pub(crate) fn read(value: Value, fields: &Fields, settings: &Settings) -> Result<Arc<[Input]>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(Arc::new([text_input("input", text, settings)?])),
        Value::Array(items) => items,
        other => return Err(fields.mismatch("input", &other, "a text or a list of texts")),
    };
    match items.first() {
        None => return Err(ApiError::invalid("input", "input is an empty list; send at least one text")),
        // A list of numbers is one input, however long.
        Some(Value::Number(_)) => {
            return Ok(Arc::new([tokens("input", &items, (fields, settings))?]));
        }
        Some(_) => {}
    }
    if items.len() > settings.max_inputs {
        let message = format!(
            "input has {} entries, {} are allowed; send several requests",
            items.len(),
            settings.max_inputs
        );
        return Err(ApiError::invalid("input", message));
    }
    let of_tokens = items.first().is_some_and(Value::is_array);
    let due = if of_tokens { "a list of token ids" } else { "a text" };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            let place = format!("input[{index}]");
            match item {
                Value::String(text) if !of_tokens => text_input(&place, text, settings),
                Value::Array(ids) if of_tokens => tokens(&place, &ids, (fields, settings)),
                other => Err(fields.unfit(
                    Some(place.clone()),
                    format!("{place} is {}, {due} is due like the first", kind(&other)),
                )),
            }
        })
        .collect()
}

/// A text that can be embedded.
pub(crate) fn text_input(place: &str, text: String, settings: &Settings) -> Result<Input, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(place, format!("{place} is blank; leave it out or send a text")));
    }
    if text.len() > settings.text_limit {
        let message =
            format!("{place} has {} bytes, {} are allowed; split it", text.len(), settings.text_limit);
        return Err(ApiError::invalid(place, message));
    }
    Ok(Input::Text(text.into()))
}

fn tokens(place: &str, ids: &[Value], (fields, settings): (&Fields, &Settings)) -> Result<Input, ApiError> {
    if ids.is_empty() {
        return Err(ApiError::invalid(place, format!("{place} is an empty list; leave it out")));
    }
    // A token is seldom shorter than a byte of text.
    if ids.len() > settings.text_limit {
        let message =
            format!("{place} has {} token ids, {} are allowed; split it", ids.len(), settings.text_limit);
        return Err(ApiError::invalid(place, message));
    }
    let id = |(at, id): (usize, &Value)| {
        id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            let place = format!("{place}[{at}]");
            fields.unfit(Some(place.clone()), format!("{place} is {}, a token id is due", kind(id)))
        })
    };
    Ok(Input::Tokens(ids.iter().enumerate().map(id).collect::<Result<_, _>>()?))
}
