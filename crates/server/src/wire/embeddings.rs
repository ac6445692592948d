//! The embeddings request and its answer, in OpenAI's form with our additions.

use std::{num::NonZeroUsize, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::{Embeddings, Input, Truncate};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{Fields, kind};
use crate::{Settings, error::ApiError};

/// What to embed, and how.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// A text, or 1 to 2048 texts. None may be blank.
    #[schema(value_type = OneOrMany)]
    pub(crate) input: Arc<[Input]>,
    /// A configured id, or a model's name. Without it the default model answers.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    pub(crate) model: Option<String>,
    /// How vectors are written; `float` when absent.
    #[schema(value_type = Option<Encoding>, inline)]
    pub(crate) encoding_format: Encoding,
    /// The wanted length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// Which end of a text that is too long is dropped; `none` refuses it.
    #[schema(value_type = Option<TruncateName>, inline)]
    pub(crate) truncate: Option<Truncate>,
    /// Whether vectors are brought to unit length.
    #[schema(value_type = Option<bool>, default = true)]
    pub(crate) normalize: bool,
    /// Accepted for OpenAI's clients; has no effect.
    #[expect(dead_code, reason = "documented and accepted, nothing reads it")]
    pub(crate) user: Option<String>,
}

/// One text or several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the documentation's picture of `input`")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Numbers.
    Float,
    /// Little-endian f32, in base64.
    Base64,
}

/// The words of `truncate`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the documentation's picture of `truncate`")]
pub(crate) enum TruncateName {
    End,
    Start,
    None,
}

impl EmbeddingsRequest {
    /// Reads the body and checks what can be checked without a model.
    pub(crate) fn read(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let input = fields.take("input");
        let model = fields.text("model")?;
        let encodings = [("float", Encoding::Float), ("base64", Encoding::Base64)];
        let encoding_format = fields.choice("encoding_format", &encodings)?.unwrap_or(Encoding::Float);
        let dimensions =
            match fields.take("dimensions") {
                None => None,
                Some(value) => {
                    let wanted = value
                        .as_u64()
                        .and_then(|wanted| usize::try_from(wanted).ok())
                        .and_then(NonZeroUsize::new);
                    Some(wanted.ok_or_else(|| {
                        fields.mismatch("dimensions", &value, "a whole number of at least 1")
                    })?)
                }
            };
        let ends = [("end", Truncate::End), ("start", Truncate::Start), ("none", Truncate::None)];
        let truncate = fields.choice("truncate", &ends)?;
        let normalize = fields.switch("normalize")?.unwrap_or(true);
        let user = fields.text("user")?;
        let Some(input) = input else {
            return Err(
                fields.unfit(Some("input".into()), "input is missing; send a text or a list of texts".into())
            );
        };
        let input = inputs(input, &fields, settings)?;
        fields.finish()?;
        Ok(Self { input, model, encoding_format, dimensions, truncate, normalize, user })
    }
}

fn inputs(value: Value, fields: &Fields, settings: &Settings) -> Result<Arc<[Input]>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(Arc::new([Input::Text(check("input", text, settings)?.into())])),
        Value::Array(items) => items,
        other => return Err(fields.mismatch("input", &other, "a text or a list of texts")),
    };
    if items.is_empty() {
        return Err(ApiError::invalid("input", "input is an empty list; send at least one text"));
    }
    if items.iter().any(|item| item.is_number() || item.is_array())
        && items.iter().all(|item| !item.is_string())
    {
        return Err(ApiError::invalid("input", "input holds token ids; this version takes text only"));
    }
    if items.len() > settings.max_inputs {
        let message = format!(
            "input has {} texts, {} are allowed; send several requests",
            items.len(),
            settings.max_inputs
        );
        return Err(ApiError::invalid("input", message));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::String(text) => Ok(Input::Text(check(&format!("input[{index}]"), text, settings)?.into())),
            other => {
                let place = format!("input[{index}]");
                Err(fields.unfit(Some(place.clone()), format!("{place} is {}, a text is due", kind(&other))))
            }
        })
        .collect()
}

fn check(place: &str, text: String, settings: &Settings) -> Result<String, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(place, format!("{place} is blank; leave it out or send a text")));
    }
    if text.len() > settings.text_limit {
        let message =
            format!("{place} has {} bytes, {} are allowed; split it", text.len(), settings.text_limit);
        return Err(ApiError::invalid(place, message));
    }
    Ok(text)
}

/// The vectors, in the order of the inputs.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsAnswer<'a> {
    /// `list`
    object: &'static str,
    data: Vec<Item<'a>>,
    /// The model's name as it was asked for.
    model: &'a str,
    usage: Usage,
}

/// One input's vector.
#[derive(Serialize, ToSchema)]
struct Item<'a> {
    /// `embedding`
    object: &'static str,
    /// The input's place in the request.
    index: usize,
    embedding: Vector<'a>,
}

/// Numbers, or base64 of little-endian f32.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Vector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

/// Tokens the model read, special tokens included.
#[derive(Serialize, ToSchema)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The answer as JSON.
pub(crate) fn write(
    embeddings: &Embeddings,
    model: &str,
    encoding: Encoding,
) -> Result<Vec<u8>, serde_json::Error> {
    let tokens = embeddings.total_tokens();
    let data: Vec<Item<'_>> = embeddings
        .rows()
        .enumerate()
        .map(|(index, row)| Item { object: "embedding", index, embedding: vector(row, encoding) })
        .collect();
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    // A number takes about twelve characters, or five and a half in base64.
    let mut json =
        Vec::with_capacity(embeddings.data.len() * if encoding == Encoding::Float { 13 } else { 6 } + 256);
    serde_json::to_writer(&mut json, &EmbeddingsAnswer { object: "list", data, model, usage })?;
    Ok(json)
}

fn vector(row: &[f32], encoding: Encoding) -> Vector<'_> {
    match encoding {
        Encoding::Float => Vector::Float(row),
        Encoding::Base64 => {
            let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(BASE64_STANDARD.encode(bytes))
        }
    }
}
