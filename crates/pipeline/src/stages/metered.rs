//! Texts to vectors on a tenant's account: the day's tokens before, usage after.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use embeddery_accounts::{UserId, ledger::Spent};
use embeddery_core::{Context, EmbedError, EmbedRequest, Embeddings, Input, InputType, Priority};

use super::{
    Tools, Trouble, reason, selector,
    trouble::{Blame, Pause, code, of_model},
};
use crate::Plan;

/// On whose behalf, with which model.
#[derive(Clone)]
pub(super) struct Asking<'a> {
    pub(super) tenant: &'a Arc<str>,
    pub(super) plan: &'a Plan,
    /// The vectors' length when it is not the model's own.
    pub(super) dimensions: Option<NonZeroUsize>,
    /// Ties log lines together.
    pub(super) request_id: &'a Arc<str>,
}

/// Why a call has no answer.
pub(super) enum Refused {
    /// Some texts may be answered apart from the others.
    Split(EmbedError),
    /// It is the same for all of them.
    All(Trouble),
}

/// Embeds texts together, or says whether they should be tried apart.
pub(super) async fn embed(
    tools: &Tools,
    asking: &Asking<'_>,
    texts: &[Arc<str>],
) -> Result<Embeddings, Refused> {
    let error = match call(tools, asking, texts).await {
        Ok(answer) => {
            tools.lanes.open(asking.plan);
            return Ok(answer);
        }
        Err(Called::Quota(trouble)) => return Err(Refused::All(trouble)),
        Err(Called::Failed(error)) => error,
    };
    let park = |pause| {
        Err(Refused::All(tools.lanes.park(asking.plan, reason(code(&error), error.message.clone()), pause)))
    };
    match Blame::of(&error) {
        Blame::Texts => Err(Refused::Split(error)),
        Blame::Model => Err(Refused::All(of_model(&error))),
        Blame::Provider(pause) => park(pause),
        Blame::Unclear => match probe(tools, asking).await {
            // Another text is answered: it is about these.
            true => Err(Refused::Split(error)),
            false => park(Pause::Guessed(Duration::from_secs(1))),
        },
    }
}

/// Whether the model answers a text that has never harmed anybody. It differs each time, so that no cache answers.
async fn probe(tools: &Tools, asking: &Asking<'_>) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    call(tools, asking, &[format!("Are you there? {now}").into()]).await.is_ok()
}

enum Called {
    Quota(Trouble),
    Failed(EmbedError),
}

async fn call(tools: &Tools, asking: &Asking<'_>, texts: &[Arc<str>]) -> Result<Embeddings, Called> {
    let user = UserId::new(Arc::clone(asking.tenant));
    let reserved = tools.ledger.reserve(&user, about_tokens(texts), tools.patience).await;
    let reservation = reserved.map_err(|exhausted| Called::Quota(Trouble::of_quota(exhausted)))?;
    let inputs: Arc<[Input]> = texts.iter().map(|text| Input::Text(Arc::clone(text))).collect();
    let context = Context {
        priority: Priority::Batch,
        deadline: Some(Instant::now() + tools.patience),
        ..Context::new(Arc::clone(asking.tenant), Arc::clone(asking.request_id))
    };
    let notes = context.notes.clone();
    let request = EmbedRequest {
        dimensions: asking.dimensions,
        dimension_policy: tools.dimension_policy,
        input_type: Some(InputType::Document),
        ..EmbedRequest::plain(inputs, context)
    };
    let answer = tools.router.embed(selector(asking.plan), request).await.map_err(Called::Failed)?;
    reservation.settle(Spent::of(&answer, notes.cache().map_or(0, |(hits, _)| hits))).await;
    Ok(answer)
}

/// A token is about four bytes of text; models add two of their own to each text.
fn about_tokens(texts: &[Arc<str>]) -> u64 {
    texts.iter().map(|text| text.len().div_ceil(4) + 2).sum::<usize>() as u64
}
