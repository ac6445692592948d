//! The embeddings response, in OpenAI's form with our additions.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::Embeddings;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    dtype::{Dtype, Numbers, bytes, numbers},
    fast_json::JsonBuffer,
};
use crate::error::ErrorDetail;

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// Numbers.
    Float,
    /// Little-endian f32 (or bytes, by `output_dtype`), in base64.
    Base64,
}

/// How vectors are written, and what their numbers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorEncoding {
    pub(crate) format: EncodingFormat,
    pub(crate) dtype: Dtype,
}

/// The vectors, in the order of the inputs.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse<'a> {
    /// `list`
    object: &'static str,
    data: Vec<EmbeddingItem<'a>>,
    /// The model's name as in the request.
    model: &'a str,
    usage: TokenUsage,
}

/// One input's vector, or why it has none.
#[derive(Serialize, ToSchema)]
struct EmbeddingItem<'a> {
    /// `embedding`, or `error` with `on_error: partial`.
    object: &'static str,
    /// The input's index in the request.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<EmbeddingVector<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
}

/// Numbers, or base64 of their bytes.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EmbeddingVector<'a> {
    #[schema(value_type = Vec<f32>)]
    Numbers(Numbers<'a>),
    Base64(String),
}

/// Tokens the model read, special tokens included.
#[derive(Serialize, ToSchema)]
struct TokenUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The response as JSON.
pub(crate) fn to_json(
    mut embeddings: Embeddings,
    model: &str,
    encoding: VectorEncoding,
) -> Result<Vec<u8>, serde_json::Error> {
    let tokens = embeddings.total_tokens();
    let mut failed = std::mem::take(&mut embeddings.failed).into_iter().peekable();
    let data: Vec<EmbeddingItem<'_>> = embeddings
        .rows()
        .enumerate()
        .map(|(index, row)| match failed.next_if(|(failed, _)| *failed == index) {
            None => EmbeddingItem {
                object: "embedding",
                index,
                embedding: Some(vector(row, encoding)),
                error: None,
            },
            Some((_, error)) => {
                EmbeddingItem { object: "error", index, embedding: None, error: Some(error.into()) }
            }
        })
        .collect();
    let usage = TokenUsage { prompt_tokens: tokens, total_tokens: tokens };
    // A number takes about twelve characters, or five and a half in base64.
    let each = if encoding.format == EncodingFormat::Float { 13 } else { 6 };
    let mut json = JsonBuffer::with_capacity(embeddings.data.len() * each + 256);
    serde_json::to_writer(&mut json, &EmbeddingsResponse { object: "list", data, model, usage })?;
    Ok(json.into_bytes())
}

fn vector(row: &[f32], encoding: VectorEncoding) -> EmbeddingVector<'_> {
    match encoding.format {
        EncodingFormat::Float => EmbeddingVector::Numbers(numbers(row, encoding.dtype)),
        EncodingFormat::Base64 => EmbeddingVector::Base64(BASE64_STANDARD.encode(bytes(row, encoding.dtype))),
    }
}
