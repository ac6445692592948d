//! The embeddings request, in OpenAI's form with our additions.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{Input, InputType, Truncate};
use utoipa::ToSchema;

use super::{
    answer::{Encoding, Form},
    dtype::{DTYPES, Dtype},
    fields::Fields,
    input::{self, InputForms},
};
use crate::{Settings, error::ApiError};

/// What to embed, and how.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// A text, or 1 to 2048 texts, none of them blank; or the same as ids of OpenAI's tokenizers, which are
    /// decoded for models of other families.
    #[schema(value_type = InputForms)]
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
    /// What the vectors are for, where the model makes a difference.
    #[schema(value_type = Option<InputTypeName>, inline)]
    pub(crate) input_type: Option<InputType>,
    /// Which end of a text that is too long is dropped; `none` refuses it.
    #[schema(value_type = Option<TruncateName>, inline)]
    pub(crate) truncate: Option<Truncate>,
    /// Whether vectors are brought to unit length.
    #[schema(value_type = Option<bool>, default = true)]
    pub(crate) normalize: bool,
    /// What the numbers are, `float` when absent: `int8` is a component times 127, rounded; `uint8` the same plus 128; `ubinary` has
    /// a bit for each component above zero, eight to a byte, the first highest; `binary` the same minus 128.
    #[schema(value_type = Option<Dtype>, inline)]
    pub(crate) output_dtype: Dtype,
    /// Whether an input that fails fails the request, or has an error in its place in `data`; `fail`
    /// when absent.
    #[schema(value_type = Option<OnError>, inline)]
    pub(crate) on_error: OnError,
    /// Accepted for OpenAI's clients; has no effect.
    #[expect(dead_code, reason = "documented and accepted, nothing reads it")]
    pub(crate) user: Option<String>,
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

/// The words of `input_type`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the documentation's picture of `input_type`")]
pub(crate) enum InputTypeName {
    Query,
    Document,
    Classification,
    Clustering,
}

/// What becomes of a request when an input fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum OnError {
    /// It fails.
    Fail,
    /// The others are answered.
    Partial,
}

impl EmbeddingsRequest {
    /// Reads the body and checks what can be checked without a model.
    pub(crate) fn read(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let input = fields.take("input");
        let model = fields.text("model")?;
        let encodings = [("float", Encoding::Float), ("base64", Encoding::Base64)];
        let encoding_format = fields.choice("encoding_format", &encodings)?.unwrap_or(Encoding::Float);
        let dimensions = fields.count("dimensions")?;
        let types = [InputType::Query, InputType::Document, InputType::Classification, InputType::Clustering];
        let input_type = fields.choice("input_type", &types.map(|each| (each.as_str(), each)))?;
        let ends = [("end", Truncate::End), ("start", Truncate::Start), ("none", Truncate::None)];
        let truncate = fields.choice("truncate", &ends)?;
        let normalize = fields.switch("normalize")?.unwrap_or(true);
        let output_dtype = fields.choice("output_dtype", &DTYPES)?.unwrap_or(Dtype::Float);
        let outcomes = [("fail", OnError::Fail), ("partial", OnError::Partial)];
        let on_error = fields.choice("on_error", &outcomes)?.unwrap_or(OnError::Fail);
        let user = fields.text("user")?;
        let Some(input) = input else {
            let missing = "input is missing; send a text or a list of texts".to_owned();
            let missing = fields.unfit(Some("input".into()), missing);
            // A misspelt name tells more than a missing one.
            return Err(fields.finish().err().unwrap_or(missing));
        };
        if !normalize && matches!(output_dtype, Dtype::Int8 | Dtype::Uint8) {
            let message =
                "output_dtype: int8 and uint8 are made from vectors of unit length; leave `normalize` out";
            return Err(ApiError::invalid("output_dtype", message));
        }
        let input = input::read(input, &fields, settings)?;
        fields.finish()?;
        Ok(Self {
            input,
            model,
            encoding_format,
            dimensions,
            input_type,
            truncate,
            normalize,
            output_dtype,
            on_error,
            user,
        })
    }

    /// How the vectors are to be written.
    pub(crate) fn form(&self) -> Form {
        Form { encoding: self.encoding_format, dtype: self.output_dtype }
    }
}
