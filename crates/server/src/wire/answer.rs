//! The embeddings answer, in OpenAI's form with our additions.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::Embeddings;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    dtype::{Dtype, Numbers, bytes, numbers},
    json::Json,
};
use crate::error::ErrorDetail;

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Numbers.
    Float,
    /// Little-endian f32 (or bytes, by `output_dtype`), in base64.
    Base64,
}

/// How vectors are written, and what their numbers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) dtype: Dtype,
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

/// One input's vector, or why it has none.
#[derive(Serialize, ToSchema)]
struct Item<'a> {
    /// `embedding`, or `error` with `on_error: partial`.
    object: &'static str,
    /// The input's place in the request.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VectorForms>)]
    embedding: Option<Vector<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
}

/// Numbers, or base64 of their bytes.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the documentation's picture of a vector")]
enum VectorForms {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Numbers(Numbers<'a>),
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
    mut embeddings: Embeddings,
    model: &str,
    form: Form,
) -> Result<Vec<u8>, serde_json::Error> {
    let tokens = embeddings.total_tokens();
    let mut failed = std::mem::take(&mut embeddings.failed).into_iter().peekable();
    let data: Vec<Item<'_>> = embeddings
        .rows()
        .enumerate()
        .map(|(index, row)| match failed.next_if(|(place, _)| *place == index) {
            None => Item { object: "embedding", index, embedding: Some(vector(row, form)), error: None },
            Some((_, error)) => Item { object: "error", index, embedding: None, error: Some(error.into()) },
        })
        .collect();
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    // A number takes about twelve characters, or five and a half in base64.
    let each = if form.encoding == Encoding::Float { 13 } else { 6 };
    let mut json = Json::with_capacity(embeddings.data.len() * each + 256);
    serde_json::to_writer(&mut json, &EmbeddingsAnswer { object: "list", data, model, usage })?;
    Ok(json.into_bytes())
}

fn vector(row: &[f32], form: Form) -> Vector<'_> {
    match form.encoding {
        Encoding::Float => Vector::Numbers(numbers(row, form.dtype)),
        Encoding::Base64 => Vector::Base64(BASE64_STANDARD.encode(bytes(row, form.dtype))),
    }
}
