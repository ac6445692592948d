//! Texts to vectors of one collection's space, or a refusal.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use embeddery_accounts::{Role, ledger::UsageRecord};
use embeddery_core::{EmbedRequest, Embeddings, Input, InputType, Priority, ProviderKind, SpaceId};
use embeddery_gateway::{ModelSelector, ResolvedModel};
use embeddery_store::{ModelBinding, StoreError};

use super::{CollectionService, selector};
use crate::error::ApiError;

/// A model as a request names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) name: Option<String>,
    pub(crate) provider: Option<ProviderKind>,
    pub(crate) dimensions: Option<NonZeroUsize>,
}

/// Texts that go to a model together: enough to keep it busy, few enough that nobody waits long behind them.
const BATCH: usize = 256;

impl CollectionService {
    /// What a collection of this model is bound to: the model is asked, because only its answer tells the space.
    pub(crate) async fn bind(&self, model: &Model) -> Result<ModelBinding, ApiError> {
        let selector = ModelSelector { model: model.name.as_deref(), provider: model.provider };
        let resolved = self.app.router.resolve(selector)?;
        let probe = self.request(&["collection probe".into()], model.dimensions, InputType::Document);
        let answer = self.embed(selector, probe).await?;
        Ok(ModelBinding {
            provider: resolved.provider.to_string(),
            model: resolved.model.name.to_string(),
            custom_dimensions: model.dimensions.is_some(),
            space: answer.space,
            dim: answer.dim,
        })
    }

    /// Who serves a model, if this caller may use it; nobody is asked for a vector.
    pub(crate) fn permitted(&self, model: &Model) -> Result<ResolvedModel, ApiError> {
        let selector = ModelSelector { model: model.name.as_deref(), provider: model.provider };
        let resolved = self.app.router.resolve_permitted(selector)?;
        self.may_fetch(selector)?;
        Ok(resolved)
    }

    /// One user's wish must not fill everybody's disk.
    fn may_fetch(&self, selector: ModelSelector<'_>) -> Result<(), ApiError> {
        if self.app.accounts.auth.is_multi_user()
            && self.metered.identity.role != Role::Admin
            && !self.app.router.is_available_without_download(selector)
        {
            return Err(ApiError::admin_must_download(selector.model.unwrap_or_default()));
        }
        Ok(())
    }

    /// The vectors of texts, in order, all of the binding's space.
    pub(crate) async fn vectors(
        &self,
        (collection, binding): (&str, &ModelBinding),
        texts: &[Arc<str>],
        input_type: InputType,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let dimensions = if binding.custom_dimensions { NonZeroUsize::new(binding.dim) } else { None };
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let request = self.request(batch, dimensions, input_type);
            let answer = self.embed(selector(binding), request).await?;
            check_space(collection, binding, &answer)?;
            vectors.extend(answer.rows().map(<[f32]>::to_vec));
        }
        Ok(vectors)
    }

    /// Embeds on the caller's account: rate and quota before, usage after.
    async fn embed(
        &self,
        selector: ModelSelector<'_>,
        request: EmbedRequest,
    ) -> Result<Embeddings, ApiError> {
        self.may_fetch(selector)?;
        let reservation = self.metered.reserve(&self.app, &request.inputs).await?;
        let notes = request.context.stats.clone();
        let began = Instant::now();
        let answer = self.app.router.embed(selector, request).await?;
        self.metered.page.embedded(&answer, &notes, began.elapsed());
        reservation
            .settle(UsageRecord::from_embeddings(&answer, notes.cache().map_or(0, |(hits, _)| hits)))
            .await;
        Ok(answer)
    }

    fn request(
        &self,
        texts: &[Arc<str>],
        dimensions: Option<NonZeroUsize>,
        input_type: InputType,
    ) -> EmbedRequest {
        let inputs: Arc<[Input]> = texts.iter().map(|text| Input::Text(Arc::clone(text))).collect();
        let mut context = self.context();
        if self.deadline.is_none() {
            context.priority = Priority::Batch;
        }
        EmbedRequest {
            dimensions,
            dimension_policy: self.app.settings.dimension_policy,
            input_type: Some(input_type),
            ..EmbedRequest::with_defaults(inputs, context)
        }
    }
}

/// The model may have changed under its name, or a fallback may have answered: then nothing is stored or compared.
fn check_space(collection: &str, binding: &ModelBinding, answer: &Embeddings) -> Result<(), ApiError> {
    same_space(collection, &binding.space, &answer.space)
}

/// Refuses vectors of another space, by name.
pub(crate) fn same_space(collection: &str, bound: &SpaceId, offered: &SpaceId) -> Result<(), ApiError> {
    if bound == offered { Ok(()) } else { Err(StoreError::space_mismatch(collection, bound, offered).into()) }
}
