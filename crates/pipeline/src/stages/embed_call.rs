//! One call of a model on a tenant's account, and what its failure means for the documents.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use embeddery_accounts::{MeteredCallError, UserId};
use embeddery_core::{EmbedError, EmbedRequest, Embeddings, InputType, Priority, RequestContext};
use embeddery_ingest::{Account, Ingest, document_truncation, embed_billed, text_request};

use super::{
    StageContext, StageFailure,
    failure::{FailureScope, Pause, error_code},
    reason, selector,
};
use crate::JobSpec;

/// What the texts of a call have in common.
#[derive(Clone)]
pub(super) struct EmbedCall<'a> {
    /// Pays for the call.
    pub(super) tenant: &'a Arc<str>,
    /// Names the model.
    pub(super) spec: &'a JobSpec,
    /// The length of the vectors when it is not the model's own.
    pub(super) dimensions: Option<NonZeroUsize>,
    /// Correlates the log lines of the call.
    pub(super) request_id: &'a Arc<str>,
}

/// Why a call has no vectors.
pub(super) enum CallError {
    /// The failure may be due to some of the texts: split the call.
    Split(EmbedError),
    /// Every call of the model fails so for now.
    All(StageFailure),
}

/// Embeds texts in one call.
pub(super) async fn embed(
    context: &StageContext,
    call: &EmbedCall<'_>,
    texts: &[Arc<str>],
) -> Result<Embeddings, CallError> {
    let error = match send(context, call, texts).await {
        Ok(embeddings) => {
            context.paused_providers.resume(call.spec);
            return Ok(embeddings);
        }
        Err(MeteredCallError::Quota(exceeded)) => {
            return Err(CallError::All(StageFailure::from_quota(exceeded)));
        }
        Err(MeteredCallError::Embed(error)) => error,
    };
    let pause_provider = |pause| {
        let reason = reason(error_code(&error), error.message.clone());
        Err(CallError::All(context.paused_providers.pause(call.spec, reason, pause)))
    };
    match FailureScope::from_error(&error) {
        FailureScope::Texts => Err(CallError::Split(error)),
        FailureScope::Model => Err(CallError::All(StageFailure::from_model_error(&error))),
        FailureScope::Provider(pause) => pause_provider(pause),
        FailureScope::Unclear => match probe(context, call).await {
            // The model answers another text: the failure is due to these.
            true => Err(CallError::Split(error)),
            false => pause_provider(Pause::Backoff(Duration::from_secs(1))),
        },
    }
}

/// Whether the model embeds a harmless text. The text is different each time, so that no cache answers.
async fn probe(context: &StageContext, call: &EmbedCall<'_>) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    send(context, call, &[format!("Are you there? {now}").into()]).await.is_ok()
}

async fn send(
    context: &StageContext,
    call: &EmbedCall<'_>,
    texts: &[Arc<str>],
) -> Result<Embeddings, MeteredCallError> {
    let request_context = RequestContext {
        priority: Priority::Batch,
        deadline: Some(Instant::now() + context.timeout),
        ..RequestContext::new(Arc::clone(call.tenant), Arc::clone(call.request_id))
    };
    let request = EmbedRequest {
        dimensions: call.dimensions,
        dimension_policy: context.dimension_policy,
        truncate: call.spec.provider.parse().ok().and_then(document_truncation),
        ..text_request(texts, InputType::Document, request_context)
    };
    let Ingest { router, ledger, .. } = &context.ingest;
    let user = UserId::new(Arc::clone(call.tenant));
    let account = Account { ledger, user: &user, timeout: context.timeout };
    Ok(embed_billed(router, account, selector(call.spec), request).await?.embeddings)
}
