//! Models as lists show them, and the requests that bring one here.

use embeddery_core::{ModelDescription, ModelState, ProviderKind};
use embeddery_gateway::{ListedModel, Policy};
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::Fields;
use crate::error::ApiError;

/// OpenAI's list of models.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiModels {
    /// `list`
    object: &'static str,
    data: Vec<OpenAiModel>,
}

/// A model in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiModel {
    /// What a request may call it.
    id: String,
    /// `model`
    object: &'static str,
    /// Always 0: a model's age is not known.
    created: u64,
    /// Its provider.
    owned_by: &'static str,
}

impl From<Vec<ListedModel>> for OpenAiModels {
    fn from(models: Vec<ListedModel>) -> Self {
        Self { object: "list", data: models.into_iter().map(OpenAiModel::from).collect() }
    }
}

impl From<ListedModel> for OpenAiModel {
    fn from(model: ListedModel) -> Self {
        Self { id: model.id, object: "model", created: 0, owned_by: model.provider.as_str() }
    }
}

/// The models with where each stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Models {
    data: Vec<Model>,
    /// `null`: every provider is allowed.
    allowed_providers: Option<Vec<String>>,
    /// `null`: every model is allowed.
    allowed_models: Option<Vec<String>>,
}

/// A model and where it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    /// What a request may call it.
    id: String,
    provider: &'static str,
    /// The provider's name for it.
    model: String,
    allowed: bool,
    /// Whether it answers requests that name no model.
    default: bool,
    #[serde(flatten)]
    state: State,
}

/// Where a model of this machine stands; a vendor's model stands nowhere, and nothing is said.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct State {
    /// `absent`, `downloading`, `on_disk`, `loaded`, `unloaded` (until the next request) or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<&'static str>,
    /// How much of it is here, while it is downloading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) percent: Option<u8>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl From<Option<ModelState>> for State {
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

impl Models {
    /// The models, and what the allow-list says of them.
    pub(crate) fn new(models: Vec<ListedModel>, policy: &Policy) -> Self {
        let data = models.into_iter().map(Model::from).collect();
        let names = |providers: &Vec<ProviderKind>| providers.iter().map(|p| p.as_str().to_owned()).collect();
        Self {
            data,
            allowed_providers: policy.providers.as_ref().map(names),
            allowed_models: policy.models.clone(),
        }
    }
}

impl From<ListedModel> for Model {
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

/// One model, and what is known of it without loading it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelInfo {
    #[serde(flatten)]
    model: Model,
    #[serde(flatten)]
    #[schema(value_type = Facts)]
    facts: Option<Facts>,
}

/// What the files of a model on this machine say; nothing is said of others.
#[derive(Serialize, ToSchema)]
struct Facts {
    /// `bert`, `mpnet`, …
    #[schema(example = "bert", required = false)]
    architecture: String,
    /// Numbers in a vector.
    #[schema(required = false)]
    dimensions: usize,
    /// Most tokens of one text, special tokens included.
    #[schema(required = false)]
    max_tokens: usize,
    /// What it computes in here: `f32`, `bf16`, `int8`.
    #[schema(required = false)]
    precision: &'static str,
    /// Bytes of its weight files.
    #[schema(required = false)]
    file_bytes: u64,
    /// The most that it takes in memory.
    #[schema(required = false)]
    memory_bytes: u64,
    /// As in `X-Embeddings-Space`: vectors of equal spaces may be compared.
    #[schema(required = false)]
    space: String,
}

impl From<(ListedModel, Option<ModelDescription>)> for ModelInfo {
    fn from((model, description): (ListedModel, Option<ModelDescription>)) -> Self {
        let facts = description.map(|ModelDescription { info: facts, space }| Facts {
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

/// Which model it is about.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRequest {
    /// A configured id, or a model's name. `model_id` means the same.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    pub(crate) model: Option<String>,
    /// The guide's name for `model`.
    #[expect(dead_code, reason = "documented; read as `model`")]
    pub(crate) model_id: Option<String>,
    /// Who serves it, where the name alone does not say.
    #[schema(value_type = Option<String>, example = "huggingface")]
    pub(crate) provider: Option<ProviderKind>,
}

impl ModelRequest {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let (model, model_id) = (fields.text("model")?, fields.text("model_id")?);
        let provider = match fields.text("provider")? {
            None => None,
            Some(name) => Some(name.parse().map_err(|error: String| ApiError::invalid("provider", error))?),
        };
        let named = match (model, model_id) {
            (Some(a), Some(b)) if a != b => {
                return Err(ApiError::invalid(
                    "model",
                    format!("model is '{a}' and model_id is '{b}'; send one of them"),
                ));
            }
            (a, b) => a.or(b).filter(|name| !name.trim().is_empty()),
        };
        let Some(model) = named else {
            return Err(fields.unfit(Some("model".into()), "model is missing; name the model".into()));
        };
        fields.finish()?;
        Ok(Self { model: Some(model), model_id: None, provider })
    }
}

/// A model is where it was wanted.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelDone {
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
