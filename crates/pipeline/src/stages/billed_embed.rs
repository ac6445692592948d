//! Texts to vectors on a tenant's account: the day's tokens before, usage after.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use embeddery_accounts::{MeteredCall, MeteredCallError, UserId};
use embeddery_core::{
    EmbedError, EmbedRequest, Embeddings, Input, InputType, Priority, RequestContext, SPECIAL_TOKENS,
    estimate_tokens,
};

use super::{
    StageContext, StageFailure,
    failure::{FailureScope, Pause, code, of_model},
    reason, selector,
};
use crate::JobSpec;

/// On whose behalf, with which model.
#[derive(Clone)]
pub(super) struct EmbedCall<'a> {
    pub(super) tenant: &'a Arc<str>,
    pub(super) plan: &'a JobSpec,
    /// The vectors' length when it is not the model's own.
    pub(super) dimensions: Option<NonZeroUsize>,
    /// Ties log lines together.
    pub(super) request_id: &'a Arc<str>,
}

/// Why a call has no answer.
pub(super) enum CallError {
    /// Some texts may be answered apart from the others.
    Split(EmbedError),
    /// It is the same for all of them.
    All(StageFailure),
}

/// Embeds texts together, or says whether they should be tried apart.
pub(super) async fn embed(
    tools: &StageContext,
    asking: &EmbedCall<'_>,
    texts: &[Arc<str>],
) -> Result<Embeddings, CallError> {
    let error = match call(tools, asking, texts).await {
        Ok(answer) => {
            tools.lanes.open(asking.plan);
            return Ok(answer);
        }
        Err(CallFailure::Quota(trouble)) => return Err(CallError::All(trouble)),
        Err(CallFailure::Failed(error)) => error,
    };
    let park = |pause| {
        Err(CallError::All(tools.lanes.pause(
            asking.plan,
            reason(code(&error), error.message.clone()),
            pause,
        )))
    };
    match FailureScope::of(&error) {
        FailureScope::Texts => Err(CallError::Split(error)),
        FailureScope::Model => Err(CallError::All(of_model(&error))),
        FailureScope::Provider(pause) => park(pause),
        FailureScope::Unclear => match probe(tools, asking).await {
            // Another text is answered: it is about these.
            true => Err(CallError::Split(error)),
            false => park(Pause::Guessed(Duration::from_secs(1))),
        },
    }
}

/// Whether the model answers a text that has never harmed anybody. It differs each time, so that no cache answers.
async fn probe(tools: &StageContext, asking: &EmbedCall<'_>) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    call(tools, asking, &[format!("Are you there? {now}").into()]).await.is_ok()
}

enum CallFailure {
    Quota(StageFailure),
    Failed(EmbedError),
}

async fn call(
    tools: &StageContext,
    asking: &EmbedCall<'_>,
    texts: &[Arc<str>],
) -> Result<Embeddings, CallFailure> {
    let user = UserId::new(Arc::clone(asking.tenant));
    let inputs: Arc<[Input]> = texts.iter().map(|text| Input::Text(Arc::clone(text))).collect();
    let context = RequestContext {
        priority: Priority::Batch,
        deadline: Some(Instant::now() + tools.patience),
        ..RequestContext::new(Arc::clone(asking.tenant), Arc::clone(asking.request_id))
    };
    let request = EmbedRequest {
        dimensions: asking.dimensions,
        dimension_policy: tools.dimension_policy,
        input_type: Some(InputType::Document),
        ..EmbedRequest::with_defaults(inputs, context)
    };
    let metered = MeteredCall {
        ledger: &tools.ledger,
        user: &user,
        estimated_tokens: about_tokens(texts),
        timeout: tools.patience,
    };
    match metered.run(request, |request| tools.router.embed(selector(asking.plan), request)).await {
        Ok(response) => Ok(response.embeddings),
        Err(MeteredCallError::Quota(exceeded)) => Err(CallFailure::Quota(StageFailure::of_quota(exceeded))),
        Err(MeteredCallError::Embed(error)) => Err(CallFailure::Failed(error)),
    }
}

/// The estimated tokens of all texts, special tokens included.
fn about_tokens(texts: &[Arc<str>]) -> u64 {
    texts.iter().map(|text| estimate_tokens(text) + SPECIAL_TOKENS).sum::<usize>() as u64
}
