//! From a request to tokens: prompts, cuts, and refusals that name every input at fault.

use std::{borrow::Cow, sync::Arc};

use embeddery_core::{
    EmbedError, EmbedRequest, ErrorKind, Fault, Input, InputError, InputType, Retry, Truncate,
};
use embeddery_engine::{TokenizeError, Tokens, TruncationSide};
use tokio::sync::Semaphore;

use super::model_instance::{ModelGuard, ModelInstance};

/// Texts shorter than this, together, are tokenized where they are: handing them to another thread would
/// take longer than the work.
const INLINE_BYTES: usize = 1024;

/// Tokens of every input, cut as asked; over-long inputs that must not be cut are refused together. Work that is handed
/// on holds the lease, and begins only while somebody wants it.
pub(super) async fn tokenize(
    slot: &Arc<ModelInstance>,
    lease: Arc<ModelGuard>,
    tokenizing: &Semaphore,
    request: EmbedRequest,
) -> Result<Vec<Tokens>, EmbedError> {
    let bytes: usize = request.inputs.iter().filter_map(Input::text).map(str::len).sum();
    if bytes <= INLINE_BYTES {
        return tokenize_all(slot, &lease, &request);
    }
    let _permit = tokenizing.acquire().await;
    let slot = Arc::clone(slot);
    tokio::task::spawn_blocking(move || tokenize_all(&slot, &lease, &request))
        .await
        .map_err(|_| EmbedError::internal("reading the inputs failed"))?
}

/// What is put before a text for this purpose: what configuration says, else what the model's own files say. The names
/// are those that model authors use.
fn prompt<'a>(slot: &'a ModelInstance, lease: &'a ModelGuard, purpose: Option<InputType>) -> &'a str {
    let names: &[&str] = match purpose {
        Some(InputType::Query) => &["query", "search_query"],
        Some(InputType::Document) => &["document", "passage", "search_document"],
        Some(InputType::Classification) => &["classification", "Classification"],
        Some(InputType::Clustering) => &["clustering", "Clustering"],
        None => &[],
    };
    let configured = names.iter().find_map(|name| slot.prompts.get(*name)).map(String::as_str);
    let own = lease.backend().prompts();
    configured.or_else(|| own.named(names)).unwrap_or_else(|| own.default_prompt())
}

fn tokenize_all(
    slot: &ModelInstance,
    lease: &ModelGuard,
    request: &EmbedRequest,
) -> Result<Vec<Tokens>, EmbedError> {
    let prompt = prompt(slot, lease, request.input_type);
    let keep = match request.truncate {
        None | Some(Truncate::End) => TruncationSide::Start,
        Some(Truncate::Start) => TruncationSide::End,
        Some(Truncate::None) => TruncationSide::None,
    };
    let mut all = Vec::with_capacity(request.inputs.len());
    let mut too_long = Vec::new();
    for (index, input) in request.inputs.iter().enumerate() {
        let text = input.text().ok_or_else(|| EmbedError::internal("token ids reached a model of text"))?;
        let prompted = if prompt.is_empty() { text.into() } else { Cow::from([prompt, text].concat()) };
        match lease.backend().tokenize(&prompted, keep) {
            Ok(tokens) => all.push(tokens),
            Err(TokenizeError::TooLong { tokens, .. }) => {
                too_long.push(InputError { index, tokens: Some(tokens) });
            }
            Err(error) => {
                return Err(EmbedError::invalid(format!("the input cannot be read by this model: {error}"))
                    .with_inputs(vec![InputError { index, tokens: None }]));
            }
        }
    }
    if too_long.is_empty() {
        return Ok(all);
    }
    Err(EmbedError::new(
        ErrorKind::InputTooLong,
        Fault::Caller,
        Retry::Never,
        format!(
            "the model reads at most {} tokens; shorten the input, or ask for `truncate`: \"end\" or \"start\"",
            slot.files.facts().max_tokens
        ),
    )
    .with_inputs(too_long))
}
