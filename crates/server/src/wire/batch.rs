//! The batch request of the replaced service, and its answer.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{Embeddings, Input, ProviderKind};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    fields::{Fields, kind},
    input::text_input,
};
use crate::{Settings, error::ApiError};

/// Texts to embed.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// 1 to 2048 texts, none of them blank.
    #[schema(value_type = Vec<String>)]
    pub(crate) texts: Arc<[Input]>,
    /// A configured id, or a model's name. Without it the default model answers.
    pub(crate) model: Option<String>,
    /// Who serves it, where the name alone does not say.
    #[schema(value_type = Option<String>, example = "openai")]
    pub(crate) provider: Option<ProviderKind>,
    /// The wanted length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// Accepted; calls are as large as the provider allows.
    #[expect(dead_code, reason = "documented and accepted, nothing reads it")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(crate) batch_size: Option<NonZeroUsize>,
}

/// The vectors, in the order of the texts, of unit length.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAnswer<'a> {
    embeddings: Vec<&'a [f32]>,
    /// The provider's name for the model that answered.
    model: &'a str,
    /// Who answered.
    provider: &'static str,
    count: usize,
}

impl<'a> BatchAnswer<'a> {
    pub(crate) fn of(embeddings: &'a Embeddings) -> Self {
        Self {
            embeddings: embeddings.rows().collect(),
            model: &embeddings.served_by.name,
            provider: embeddings.served_by.provider.as_str(),
            count: embeddings.tokens.len(),
        }
    }
}

impl BatchRequest {
    pub(crate) fn read(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let texts = fields.take("texts");
        let model = fields.text("model")?;
        let provider = match fields.text("provider")? {
            None => None,
            Some(name) => Some(name.parse().map_err(|error: String| ApiError::invalid("provider", error))?),
        };
        let dimensions = fields.count("dimensions")?;
        let batch_size = fields.count("batch_size")?;
        let texts = match texts {
            Some(Value::Array(texts)) => texts,
            Some(other) => return Err(fields.mismatch("texts", &other, "a list of texts")),
            None => {
                return Err(
                    fields.unfit(Some("texts".into()), "texts is missing; send a list of texts".into())
                );
            }
        };
        if texts.is_empty() {
            return Err(
                fields.unfit(Some("texts".into()), "texts is an empty list; send at least one text".into())
            );
        }
        if texts.len() > settings.max_inputs {
            let message = format!(
                "texts has {} entries, {} are allowed; send several requests",
                texts.len(),
                settings.max_inputs
            );
            return Err(ApiError::invalid("texts", message));
        }
        let texts = texts
            .into_iter()
            .enumerate()
            .map(|(index, text)| {
                let place = format!("texts[{index}]");
                match text {
                    Value::String(text) => text_input(&place, text, settings),
                    other => Err(fields
                        .unfit(Some(place.clone()), format!("{place} is {}, a text is due", kind(&other)))),
                }
            })
            .collect::<Result<_, _>>()?;
        fields.finish()?;
        Ok(Self { texts, model, provider, dimensions, batch_size })
    }
}
