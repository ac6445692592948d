//! One local model as an [`Embedder`]. Its configuration files are read when it is opened, its weights when it is used.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, InputType,
    ModelInfo, ModelState, ProviderKind, SPECIAL_TOKENS, TokenCount, TokenCounter,
    conservative_token_estimate, estimate_tokens,
};
use tokio::sync::Semaphore;

use super::{
    ModelOptions, SharedResources,
    backend::ModelOnDisk,
    model_instance::{ModelGuard, ModelInstance},
    tokenize,
};

/// A model directory whose configuration files were read, and how it is used.
pub(super) struct OpenedModel {
    pub(super) provider: ProviderKind,
    pub(super) name: Arc<str>,
    pub(super) files: Box<dyn ModelOnDisk>,
    pub(super) options: ModelOptions,
}

/// One local model.
pub(super) struct LocalModel {
    info: Arc<ModelInfo>,
    limits: CallLimits,
    instance: Arc<ModelInstance>,
    tokenizing: Arc<Semaphore>,
}

impl LocalModel {
    pub(super) fn new(opened: OpenedModel, resources: &SharedResources) -> Self {
        let OpenedModel { provider, name, files, options } = opened;
        let local_info = files.info();
        let info = ModelInfo {
            name: Arc::clone(&name),
            provider,
            dimensions: NonZeroUsize::new(local_info.dimensions),
            max_tokens: NonZeroUsize::new(local_info.max_tokens),
            matryoshka: options.matryoshka,
        };
        let settings = resources.instance_settings(options.unload_after);
        let instance = ModelInstance::new(name, files, options.prompts, settings);
        Self {
            info: Arc::new(info),
            limits: CallLimits::default(),
            instance,
            tokenizing: resources.tokenizing(),
        }
    }

    pub(super) fn state(&self) -> ModelState {
        self.instance.model_state()
    }

    pub(super) fn instance(&self) -> &Arc<ModelInstance> {
        &self.instance
    }
}

/// Counts with the tokenizer of a model, which stays loaded meanwhile.
struct LocalTokens {
    guard: ModelGuard,
    special_tokens: usize,
    prompt_tokens: usize,
}

impl LocalTokens {
    fn new(guard: ModelGuard, instance: &ModelInstance) -> Self {
        let special_tokens = guard.backend().count("").unwrap_or(SPECIAL_TOKENS);
        let prompt = tokenize::prompt(instance, &guard, Some(InputType::Document)).to_owned();
        let counter = Self { guard, special_tokens, prompt_tokens: 0 };
        let prompt_tokens = if prompt.is_empty() { 0 } else { counter.count(&prompt) };
        Self { prompt_tokens, ..counter }
    }
}

impl TokenCounter for LocalTokens {
    fn count(&self, text: &str) -> usize {
        match self.guard.backend().count(text) {
            Ok(tokens) => tokens.saturating_sub(self.special_tokens),
            // The model refuses the text when it is embedded.
            Err(_) => conservative_token_estimate(text),
        }
    }

    fn added_tokens(&self) -> usize {
        self.special_tokens + self.prompt_tokens
    }

    fn is_exact(&self) -> bool {
        true
    }
}

impl Embedder for LocalModel {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        let exact = self.instance.acquire_if_loaded().and_then(|guard| guard.backend().count(text).ok());
        // Only a loaded model has a tokenizer.
        exact.map_or_else(|| TokenCount::Estimate(estimate_tokens(text) + SPECIAL_TOKENS), TokenCount::Exact)
    }

    fn token_counter(&self) -> BoxFuture<'_, Result<Arc<dyn TokenCounter>, EmbedError>> {
        Box::pin(async move {
            let guard = self.instance.acquire().await?;
            Ok(Arc::new(LocalTokens::new(guard, &self.instance)) as Arc<dyn TokenCounter>)
        })
    }

    fn identity(&self) -> Option<EmbeddingIdentity> {
        self.instance.identity()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let guard = Arc::new(self.instance.acquire().await?);
            let (normalize, priority) = (request.normalize, request.context.priority);
            let tokens =
                tokenize::tokenize(&self.instance, Arc::clone(&guard), &self.tokenizing, request).await?;
            let counts =
                tokens.iter().map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX)).collect();
            let truncated = tokens.iter().filter(|tokens| tokens.truncated()).count();
            let mut data = guard.batcher.submit(tokens, priority)?.await?;
            let dim = self.instance.files.info().dimensions;
            if normalize {
                data.chunks_exact_mut(dim).for_each(embeddery_engine::normalize);
            }
            Ok(Embeddings {
                data,
                dim,
                space: guard.space.clone(),
                tokens: counts,
                billed_tokens: 0,
                truncated,
                failed: Vec::new(),
                served_by: Arc::clone(&self.info),
            })
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async move { self.instance.acquire().await.map(drop) })
    }
}
