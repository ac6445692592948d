//! Tokenizes the inputs of a request: adds prompts, truncates, and reports all inputs that are too long.

use std::{borrow::Cow, sync::Arc};

use embeddery_core::{
    EmbedError, EmbedRequest, ErrorKind, Fault, Input, InputError, InputType, Retry, Truncate,
};
use embeddery_engine::{TokenizeError, Tokens, TruncationSide};
use tokio::sync::Semaphore;

use super::model_instance::{ModelGuard, ModelInstance};

/// Maximum bytes of all texts that are tokenized on the calling thread. Moving so little work to another thread would take
/// longer than the work.
const INLINE_BYTES: usize = 1024;

/// The tokens of every input, truncated as requested. The error for inputs that must not be truncated names all of them.
/// Work on another thread holds the guard. It starts only if the request is not cancelled before.
pub(super) async fn tokenize(
    instance: &Arc<ModelInstance>,
    guard: Arc<ModelGuard>,
    tokenizing: &Semaphore,
    request: EmbedRequest,
) -> Result<Vec<Tokens>, EmbedError> {
    let bytes: usize = request.inputs.iter().filter_map(Input::text).map(str::len).sum();
    if bytes <= INLINE_BYTES {
        return tokenize_all(instance, &guard, &request);
    }
    let _permit = tokenizing.acquire().await;
    let instance = Arc::clone(instance);
    tokio::task::spawn_blocking(move || tokenize_all(&instance, &guard, &request))
        .await
        .map_err(|_| EmbedError::internal("tokenizing the inputs failed"))?
}

/// The prompt of an input type: the configured one, or that of the model's files. Model authors use several names for the
/// same input type.
pub(super) fn prompt<'a>(
    instance: &'a ModelInstance,
    guard: &'a ModelGuard,
    input_type: Option<InputType>,
) -> &'a str {
    let names: &[&str] = match input_type {
        Some(InputType::Query) => &["query", "search_query"],
        Some(InputType::Document) => &["document", "passage", "search_document"],
        Some(InputType::Classification) => &["classification", "Classification"],
        Some(InputType::Clustering) => &["clustering", "Clustering"],
        None => &[],
    };
    let configured = names.iter().find_map(|name| instance.prompts.get(*name)).map(String::as_str);
    let own = guard.backend().prompts();
    configured.or_else(|| own.named(names)).unwrap_or_else(|| own.default_prompt())
}

fn tokenize_all(
    instance: &ModelInstance,
    guard: &ModelGuard,
    request: &EmbedRequest,
) -> Result<Vec<Tokens>, EmbedError> {
    let prompt = prompt(instance, guard, request.input_type);
    let truncation = match request.truncate {
        None | Some(Truncate::End) => TruncationSide::End,
        Some(Truncate::Start) => TruncationSide::Start,
        Some(Truncate::None) => TruncationSide::None,
    };
    let mut tokenized = Vec::with_capacity(request.inputs.len());
    let mut too_long = Vec::new();
    for (index, input) in request.inputs.iter().enumerate() {
        let text = input
            .text()
            .ok_or_else(|| EmbedError::internal("token ids reached a model that accepts text only"))?;
        let prompted = if prompt.is_empty() { text.into() } else { Cow::from([prompt, text].concat()) };
        match guard.backend().tokenize(&prompted, truncation) {
            Ok(tokens) => tokenized.push(tokens),
            Err(TokenizeError::TooLong { tokens, .. }) => {
                too_long.push(InputError { index, tokens: Some(tokens) });
            }
            Err(error) => {
                return Err(EmbedError::invalid(format!(
                    "the input cannot be tokenized for this model: {error}"
                ))
                .with_inputs(vec![InputError { index, tokens: None }]));
            }
        }
    }
    if too_long.is_empty() {
        return Ok(tokenized);
    }
    Err(EmbedError::new(
        ErrorKind::InputTooLong,
        Fault::Caller,
        Retry::Never,
        format!(
            "the limit of the model is {} tokens; shorten the input, or set `truncate` to \"end\" or \"start\"",
            instance.files.info().max_tokens
        ),
    )
    .with_inputs(too_long))
}
