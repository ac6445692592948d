//! Models in responses, and requests about one model.

use embeddery_core::{ModelDescription, ModelState, ProviderKind};
use embeddery_gateway::{ListedModel, ModelSelector, Policy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorStyle};

/// OpenAI's list of models.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiModelList {
    /// `list`
    object: &'static str,
    data: Vec<OpenAiModel>,
}

/// A model in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiModel {
    /// Its name in requests.
    id: String,
    /// `model`
    object: &'static str,
    /// Always 0: a model's age is not known.
    created: u64,
    /// Its provider.
    owned_by: &'static str,
}

impl From<Vec<ListedModel>> for OpenAiModelList {
    fn from(models: Vec<ListedModel>) -> Self {
        Self { object: "list", data: models.into_iter().map(OpenAiModel::from).collect() }
    }
}

impl From<ListedModel> for OpenAiModel {
    fn from(model: ListedModel) -> Self {
        Self { id: model.id, object: "model", created: 0, owned_by: model.provider.as_str() }
    }
}

/// The models with their states.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    data: Vec<ModelView>,
    /// `null`: every provider is allowed.
    allowed_providers: Option<Vec<String>>,
    /// `null`: every model is allowed.
    allowed_models: Option<Vec<String>>,
}

/// A model and its state.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelView {
    /// Its name in requests.
    id: String,
    provider: &'static str,
    /// The provider's name for it.
    model: String,
    allowed: bool,
    /// Whether it serves requests that name no model.
    default: bool,
    #[serde(flatten)]
    state: ModelStateView,
}

/// The state of a model of this machine. A vendor's model has none of these fields.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct ModelStateView {
    /// `absent`, `downloading`, `on_disk`, `loaded`, `unloaded` (until the next request) or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<&'static str>,
    /// The downloaded part, while it is downloading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) percent: Option<u8>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl From<Option<ModelState>> for ModelStateView {
    fn from(state: Option<ModelState>) -> Self {
        let plain = |state| Self { state: Some(state), percent: None, reason: None };
        let Some(state) = state else { return Self::default() };
        match state {
            ModelState::Absent => plain("absent"),
            ModelState::Downloading { percent } => Self { percent: Some(percent), ..plain("downloading") },
            ModelState::OnDisk => plain("on_disk"),
            ModelState::Loaded => plain("loaded"),
            ModelState::Unloaded => plain("unloaded"),
            ModelState::Failed { reason } => Self { reason: Some(reason), ..plain("failed") },
        }
    }
}

impl ModelList {
    /// The models, and the allow-list.
    pub(crate) fn new(models: Vec<ListedModel>, policy: &Policy) -> Self {
        let data = models.into_iter().map(ModelView::from).collect();
        let names = |providers: &Vec<ProviderKind>| providers.iter().map(|p| p.as_str().to_owned()).collect();
        Self {
            data,
            allowed_providers: policy.providers.as_ref().map(names),
            allowed_models: policy.models.clone(),
        }
    }
}

impl From<ListedModel> for ModelView {
    fn from(model: ListedModel) -> Self {
        Self {
            id: model.id,
            provider: model.provider.as_str(),
            model: model.name.to_string(),
            allowed: model.allowed,
            default: model.default,
            state: model.state.into(),
        }
    }
}

/// One model, and what is known without loading it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelResponse {
    #[serde(flatten)]
    model: ModelView,
    #[serde(flatten)]
    #[schema(value_type = LocalModelDetails)]
    facts: Option<LocalModelDetails>,
}

/// What is read from the files of a model on this machine. Other models have none of these fields.
#[derive(Serialize, ToSchema)]
struct LocalModelDetails {
    /// `bert`, `mpnet`, …
    #[schema(example = "bert", required = false)]
    architecture: String,
    /// Numbers in a vector.
    #[schema(required = false)]
    dimensions: usize,
    /// The maximum number of tokens of a text, special tokens included.
    #[schema(required = false)]
    max_tokens: usize,
    /// The precision of the computation: `f32`, `bf16`, `int8`.
    #[schema(required = false)]
    precision: &'static str,
    /// Bytes of its weight files.
    #[schema(required = false)]
    file_bytes: u64,
    /// The maximum that it takes in memory.
    #[schema(required = false)]
    memory_bytes: u64,
    /// As in `X-Embeddings-Space`: vectors of equal spaces may be compared.
    #[schema(required = false)]
    space: String,
}

impl From<(ListedModel, Option<ModelDescription>)> for ModelResponse {
    fn from((model, description): (ListedModel, Option<ModelDescription>)) -> Self {
        let facts = description.map(|ModelDescription { info: facts, space }| LocalModelDetails {
            architecture: facts.architecture,
            dimensions: facts.dimensions,
            max_tokens: facts.max_tokens,
            precision: facts.precision,
            file_bytes: facts.file_bytes,
            memory_bytes: facts.memory_bytes,
            space: space.as_str().to_owned(),
        });
        Self { model: model.into(), facts }
    }
}

/// Which model a request is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRequest {
    /// A configured id, or a model's name. `model_id` means the same.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    model: Option<String>,
    /// The guide's name for `model`.
    model_id: Option<String>,
    /// The model's provider, where the name alone does not determine it.
    #[schema(example = "huggingface")]
    provider: Option<String>,
}

/// The model that a request names.
pub(crate) struct NamedModel {
    pub(crate) name: String,
    pub(crate) provider: Option<ProviderKind>,
}

impl NamedModel {
    pub(crate) fn selector(&self) -> ModelSelector<'_> {
        ModelSelector { model: Some(&self.name), provider: self.provider }
    }
}

impl ModelRequest {
    pub(crate) fn check(self) -> Result<NamedModel, ApiError> {
        let provider = parse_provider(self.provider.as_deref())?;
        let name = match (self.model, self.model_id) {
            (Some(a), Some(b)) if a != b => {
                return Err(ApiError::invalid(
                    "model",
                    format!("model is '{a}' and model_id is '{b}'; send one of them"),
                ));
            }
            (a, b) => a.or(b).filter(|name| !name.trim().is_empty()),
        };
        let missing = || {
            let message = "model is missing; send the model's name";
            ApiError::schema(ErrorStyle::Native, Some("model".into()), message)
        };
        Ok(NamedModel { name: name.ok_or_else(missing)?, provider })
    }
}

/// The field `provider`.
pub(crate) fn parse_provider(name: Option<&str>) -> Result<Option<ProviderKind>, ApiError> {
    name.map(|name| name.parse().map_err(|error: String| ApiError::invalid("provider", error))).transpose()
}

/// The model is in the requested state.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelActionResponse {
    /// `ok`
    pub(crate) status: &'static str,
    pub(crate) provider: &'static str,
    /// The provider's name for it.
    pub(crate) model: String,
    /// It is on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) downloaded: Option<bool>,
    /// It is in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warmed: Option<bool>,
    /// Whether it was in memory, and no longer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unloaded: Option<bool>,
}
