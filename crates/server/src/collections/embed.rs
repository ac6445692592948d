//! Embeds texts for a collection, in its space. The caller's account is charged.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{EmbedError, EmbedRequest, ErrorKind, InputType, Priority, ProviderKind, Truncate};
use embeddery_gateway::{ModelSelector, ResolvedModel};
use embeddery_ingest::{MAX_TEXTS_PER_CALL, check_space, document_truncation, model_selector, text_request};
use embeddery_store::ModelBinding;

use super::CollectionService;
use crate::error::ApiError;

/// A model as a request names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) name: Option<String>,
    pub(crate) provider: Option<ProviderKind>,
    pub(crate) dimensions: Option<NonZeroUsize>,
}

/// A collection with its model.
#[derive(Clone, Copy)]
pub(crate) struct BoundCollection<'a> {
    pub(crate) name: &'a str,
    pub(crate) binding: &'a ModelBinding,
}

impl BoundCollection<'_> {
    /// The truncation of documents.
    pub(crate) fn document_truncation(&self) -> Option<Truncate> {
        self.binding.provider.parse().ok().and_then(document_truncation)
    }
}

/// The vectors of texts.
pub(crate) struct EmbeddedTexts {
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Texts that the model did not read whole.
    pub(crate) truncated: u64,
}

impl Model {
    fn selector(&self) -> ModelSelector<'_> {
        ModelSelector { model: self.name.as_deref(), provider: self.provider }
    }
}

impl CollectionService {
    /// The binding of a new collection to this model. The model is called, because only its response names the space.
    pub(crate) async fn bind(&self, model: &Model) -> Result<ModelBinding, ApiError> {
        let resolved = self.app.router.resolve(model.selector())?;
        let probe = self.request(&["collection probe".into()], model.dimensions, InputType::Document);
        let embeddings = self.metered.embed(&self.app, model.selector(), probe).await?.embeddings;
        Ok(ModelBinding {
            provider: resolved.provider.to_string(),
            model: resolved.model.name.to_string(),
            custom_dimensions: model.dimensions.is_some(),
            space: embeddings.space,
            dim: embeddings.dim,
        })
    }

    /// Refuses a collection of a model that the configuration forbids, or of a path. The model need not be available here,
    /// and an unknown provider is that of a collection without a model.
    pub(crate) fn check_policy(&self, binding: &ModelBinding) -> Result<(), ApiError> {
        match self.app.router.resolve_permitted(model_selector(&binding.provider, &binding.model)) {
            Err(error)
                if error.kind == ErrorKind::Forbidden || binding.provider.parse::<ProviderKind>().is_ok() =>
            {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Resolves a model that the caller may use. The model is not called.
    pub(crate) fn permitted(&self, model: &Model) -> Result<ResolvedModel, ApiError> {
        let resolved = self.app.router.resolve_permitted(model.selector())?;
        self.metered.check_download(&self.app, model.selector())?;
        Ok(resolved)
    }

    /// Embeds texts in the space of the collection. Returns one vector for each text, in the same order.
    pub(crate) async fn vectors(
        &self,
        collection: BoundCollection<'_>,
        texts: &[Arc<str>],
        input_type: InputType,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        Ok(self.embed_texts(collection, texts, input_type, None, |_, error| error.into()).await?.vectors)
    }

    /// Embeds texts in the space of the collection, and counts those that the model did not read whole. `to_error` maps the
    /// failure of a call, and receives the index of the first text of the call.
    pub(crate) async fn embed_texts(
        &self,
        collection: BoundCollection<'_>,
        texts: &[Arc<str>],
        input_type: InputType,
        truncate: Option<Truncate>,
        to_error: impl Fn(usize, EmbedError) -> ApiError,
    ) -> Result<EmbeddedTexts, ApiError> {
        let BoundCollection { name, binding } = collection;
        let dimensions = if binding.custom_dimensions { NonZeroUsize::new(binding.dim) } else { None };
        let selector = model_selector(&binding.provider, &binding.model);
        let mut embedded = EmbeddedTexts { vectors: Vec::with_capacity(texts.len()), truncated: 0 };
        for (call, batch) in texts.chunks(MAX_TEXTS_PER_CALL).enumerate() {
            let request = EmbedRequest { truncate, ..self.request(batch, dimensions, input_type) };
            let to_error = |error| to_error(call * MAX_TEXTS_PER_CALL, error);
            let embedding = self.metered.embed_or(&self.app, selector, request, to_error);
            let embeddings = embedding.await?.embeddings;
            check_space(name, &binding.space, &embeddings.space)?;
            embedded.truncated += embeddings.truncated as u64;
            embedded.vectors.extend(embeddings.rows().map(<[f32]>::to_vec));
        }
        Ok(embedded)
    }

    fn request(
        &self,
        texts: &[Arc<str>],
        dimensions: Option<NonZeroUsize>,
        input_type: InputType,
    ) -> EmbedRequest {
        let mut context = self.context();
        if self.deadline.is_none() {
            context.priority = Priority::Batch;
        }
        EmbedRequest {
            dimensions,
            dimension_policy: self.app.settings.dimension_policy,
            ..text_request(texts, input_type, context)
        }
    }
}
