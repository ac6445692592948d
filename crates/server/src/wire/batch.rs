//! The batch request of the replaced service, and its response.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{Embeddings, Input};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{TextField, check_all};
use crate::{
    Settings,
    error::{ApiError, ErrorStyle},
};

/// Texts to embed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// 1 to 2048 texts, none of them blank.
    #[schema(value_type = Vec<String>)]
    texts: Vec<TextField>,
    /// A configured id, or a model's name. Without it the default model is used.
    pub(crate) model: Option<String>,
    /// The model's provider, where the name alone does not determine it.
    #[schema(example = "openai")]
    pub(crate) provider: Option<String>,
    /// The requested length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// Accepted; calls are as large as the provider allows.
    #[expect(dead_code, reason = "accepted, has no effect")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    batch_size: Option<NonZeroUsize>,
}

impl BatchRequest {
    /// Takes the texts out, checked.
    pub(crate) fn take_texts(&mut self, settings: &Settings) -> Result<Arc<[Input]>, ApiError> {
        let texts: Vec<Input> = std::mem::take(&mut self.texts).into_iter().map(|text| text.0).collect();
        if texts.is_empty() {
            let message = "texts is an empty list; send at least one text";
            return Err(ApiError::schema(ErrorStyle::Native, Some("texts".into()), message));
        }
        check_all("texts", texts, settings)
    }
}

/// The vectors, in the order of the texts, of unit length.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchResponse<'a> {
    embeddings: Vec<&'a [f32]>,
    /// The provider's name for the model that made the vectors.
    model: &'a str,
    /// The model's provider.
    provider: &'static str,
    count: usize,
}

impl<'a> From<&'a Embeddings> for BatchResponse<'a> {
    fn from(embeddings: &'a Embeddings) -> Self {
        Self {
            embeddings: embeddings.rows().collect(),
            model: &embeddings.served_by.name,
            provider: embeddings.served_by.provider.as_str(),
            count: embeddings.tokens.len(),
        }
    }
}
