//! Texts to vectors on a user's account.

use std::{sync::Arc, time::Duration};

use embeddery_accounts::{Ledger, MeteredCall, MeteredCallError, MeteredResponse, UserId};
use embeddery_core::{
    EmbedRequest, Input, InputType, ProviderKind, RequestContext, SPECIAL_TOKENS, SpaceId, estimate_tokens,
};
use embeddery_gateway::{ModelSelector, Router};
use embeddery_store::StoreError;

/// Maximum texts of one call of a model. It keeps a model busy and bounds the wait of the requests behind the call.
pub const MAX_TEXTS_PER_CALL: usize = 256;

/// The account that pays for a call.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// Holds quotas and usage.
    pub ledger: &'a Ledger,
    /// The user of the account.
    pub user: &'a UserId,
    /// Maximum duration of a call.
    pub timeout: Duration,
}

/// Embeds on a user's account, as [`MeteredCall`] describes.
///
/// # Errors
/// When the quota is exceeded or the gateway fails.
pub async fn embed_billed(
    router: &Router,
    account: Account<'_>,
    selector: ModelSelector<'_>,
    request: EmbedRequest,
) -> Result<MeteredResponse, MeteredCallError> {
    let Account { ledger, user, timeout } = account;
    let call =
        MeteredCall { ledger, user, estimated_tokens: estimate_input_tokens(&request.inputs), timeout };
    call.run(request, |request| router.embed(selector, request)).await
}

/// The estimated tokens of inputs, with special tokens.
pub fn estimate_input_tokens(inputs: &[Input]) -> u64 {
    let tokens = inputs.iter().map(|input| match input {
        Input::Text(text) => estimate_tokens(text) + SPECIAL_TOKENS,
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
