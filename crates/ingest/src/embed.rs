//! Texts to vectors on a user's account.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embeddery_accounts::{
    Ledger, UserId,
    ledger::{QuotaExceeded, UsageRecord},
};
use embeddery_core::{
    EmbedError, EmbedRequest, Embeddings, Input, InputType, ProviderKind, RequestContext, SpaceId,
};
use embeddery_gateway::{ModelSelector, Router};
use embeddery_store::StoreError;

/// Maximum texts of one call of a model. It keeps a model busy and bounds the wait of the requests behind the call.
pub const MAX_TEXTS_PER_CALL: usize = 256;

/// Vectors whose usage is recorded.
#[derive(Debug)]
pub struct Billed {
    /// The vectors.
    pub embeddings: Embeddings,
    /// How long the model took, without accounting.
    pub elapsed: Duration,
}

/// Why a billed call has no vectors. Nothing is charged for it.
#[derive(Clone, Debug, PartialEq)]
pub enum BilledError {
    /// The user's quota of tokens does not allow the call.
    Quota(QuotaExceeded),
    /// The gateway failed.
    Embed(EmbedError),
}

/// The account that pays for a call.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// Holds quotas and usage.
    pub ledger: &'a Ledger,
    /// The user of the account.
    pub user: &'a UserId,
    /// How long a process that crashes during the call holds its reservation.
    pub reservation_ttl: Duration,
}

/// Embeds on a user's account: reserves the estimated tokens, calls the model, and records the tokens that it read.
/// When the call fails or is dropped, the reservation is returned.
///
/// # Errors
/// When the quota is exceeded or the gateway fails.
pub async fn embed_billed(
    router: &Router,
    account: Account<'_>,
    selector: ModelSelector<'_>,
    request: EmbedRequest,
) -> Result<Billed, BilledError> {
    let Account { ledger, user, reservation_ttl } = account;
    let tokens = estimate_tokens(&request.inputs);
    let reservation = ledger.reserve(user, tokens, reservation_ttl).await.map_err(BilledError::Quota)?;
    let stats = request.context.notes.clone();
    let started = Instant::now();
    let embeddings = router.embed(selector, request).await.map_err(BilledError::Embed)?;
    let elapsed = started.elapsed();
    let cached_texts = stats.cache().map_or(0, |(hits, _)| hits);
    reservation.settle(UsageRecord::of(&embeddings, cached_texts)).await;
    Ok(Billed { embeddings, elapsed })
}

/// Estimates the tokens of inputs from their bytes: a token is about four bytes, and models add two special tokens to
/// each text.
pub fn estimate_tokens(inputs: &[Input]) -> u64 {
    let tokens = inputs.iter().map(|input| match input {
        Input::Text(text) => text.len().div_ceil(4) + 2,
        Input::Tokens(tokens) => tokens.len(),
    });
    tokens.sum::<usize>() as u64
}

/// A request for the vectors of texts, of unit length.
pub fn text_request(texts: &[Arc<str>], input_type: InputType, context: RequestContext) -> EmbedRequest {
    let inputs: Arc<[Input]> = texts.iter().map(|text| Input::Text(Arc::clone(text))).collect();
    EmbedRequest { input_type: Some(input_type), ..EmbedRequest::with_defaults(inputs, context) }
}

/// Selects a stored model. Its provider is named, so that no fallback of another space answers.
pub fn model_selector<'a>(provider: &str, model: &'a str) -> ModelSelector<'a> {
    ModelSelector { model: Some(model), provider: provider.parse::<ProviderKind>().ok() }
}

/// Refuses vectors of another space than the collection's. The model behind a name may change, and a fallback may
/// answer for it.
///
/// # Errors
/// When the spaces differ; the message names both.
pub fn check_space(collection: &str, bound: &SpaceId, offered: &SpaceId) -> Result<(), StoreError> {
    if bound == offered { Ok(()) } else { Err(StoreError::space_mismatch(collection, bound, offered)) }
}
