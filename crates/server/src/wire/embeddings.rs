//! The embeddings request, in OpenAI's form with our additions.

use std::num::NonZeroUsize;

use embeddery_core::{InputType, Truncate};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    dtype::Dtype,
    embeddings_response::{EncodingFormat, VectorEncoding},
    field::word,
    input::InputField,
};
use crate::error::ApiError;

/// What to embed, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// A text, or 1 to 2048 texts, none of them blank; or the same as ids of OpenAI's tokenizers, which are
    /// decoded for models of other families.
    pub(crate) input: InputField,
    /// A configured id, or a model's name. Without it the default model is used.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    pub(crate) model: Option<String>,
    /// How vectors are written; `float` when absent.
    #[serde(default, deserialize_with = "word")]
    #[schema(inline)]
    pub(crate) encoding_format: Option<EncodingFormat>,
    /// The requested length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// What the vectors are for, where the model makes a difference.
    #[serde(default, deserialize_with = "word")]
    #[schema(inline)]
    pub(crate) input_type: Option<InputTypeField>,
    /// Which end of a text over the model's limit is dropped; `none` rejects such a text.
    #[serde(default, deserialize_with = "word")]
    #[schema(inline)]
    pub(crate) truncate: Option<TruncateField>,
    /// Whether vectors are scaled to unit length.
    #[schema(default = true)]
    pub(crate) normalize: Option<bool>,
    /// What the numbers are, `float` when absent: `int8` is a component times 127, rounded; `uint8` the same plus 128; `ubinary` has
    /// a bit for each component above zero, eight to a byte, the first highest; `binary` the same minus 128.
    #[serde(default, deserialize_with = "word")]
    #[schema(inline)]
    pub(crate) output_dtype: Option<Dtype>,
    /// Whether an input that fails fails the request, or has an error in its place in `data`; `fail`
    /// when absent.
    #[serde(default, deserialize_with = "word")]
    #[schema(inline)]
    pub(crate) on_error: Option<OnError>,
    /// Accepted for OpenAI's clients; has no effect.
    #[expect(dead_code, reason = "accepted, has no effect")]
    pub(crate) user: Option<String>,
}

/// The values of `truncate`.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TruncateField {
    End,
    Start,
    None,
}

impl From<TruncateField> for Truncate {
    fn from(field: TruncateField) -> Self {
        match field {
            TruncateField::End => Self::End,
            TruncateField::Start => Self::Start,
            TruncateField::None => Self::None,
        }
    }
}

/// The values of `input_type`.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InputTypeField {
    Query,
    Document,
    Classification,
    Clustering,
}

impl From<InputTypeField> for InputType {
    fn from(field: InputTypeField) -> Self {
        match field {
            InputTypeField::Query => Self::Query,
            InputTypeField::Document => Self::Document,
            InputTypeField::Classification => Self::Classification,
            InputTypeField::Clustering => Self::Clustering,
        }
    }
}

/// What happens to a request when an input fails.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnError {
    /// The request fails.
    Fail,
    /// The other inputs are embedded.
    Partial,
}

impl EmbeddingsRequest {
    /// Whether vectors are scaled to unit length.
    pub(crate) fn normalize(&self) -> bool {
        self.normalize.unwrap_or(true)
    }

    /// How the vectors are written.
    pub(crate) fn encoding(&self) -> Result<VectorEncoding, ApiError> {
        let dtype = self.output_dtype.unwrap_or(Dtype::Float);
        if !self.normalize() && matches!(dtype, Dtype::Int8 | Dtype::Uint8) {
            let message = "output_dtype: int8 and uint8 require vectors of unit length; omit `normalize`";
            return Err(ApiError::invalid("output_dtype", message));
        }
        Ok(VectorEncoding { format: self.encoding_format.unwrap_or(EncodingFormat::Float), dtype })
    }
}
