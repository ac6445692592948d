//! Splits a request into calls that fit the provider's limits: parts by items, tokens and bytes, embedded in parallel
//! and merged in the caller's order. A part that the provider rejects as too large is halved. If single inputs may
//! fail (`partial`), a rejected part is bisected until the bad inputs are found, and the other inputs succeed.

mod packing;

use std::sync::Arc;

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, InputError, Retry,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    batch_bisector::BatchBisector,
    batch_parts::{self, ResponseAssembler},
    delegate::delegate_embedder,
};

/// Splits requests and merges the responses.
pub struct Splitter {
    inner: Arc<dyn Embedder>,
    max_parallel_parts: usize,
}

/// Indices of inputs of the whole request.
type Part = Vec<usize>;

impl Splitter {
    /// Wraps `inner`. At most `max_parallel_parts` parts of one request are embedded at a time.
    pub fn new(inner: Arc<dyn Embedder>, max_parallel_parts: usize) -> Self {
        Self { inner, max_parallel_parts: max_parallel_parts.max(1) }
    }

    async fn embed_part(&self, whole: &EmbedRequest, part: Part) -> (Part, Result<Embeddings, EmbedError>) {
        let request =
            if part.len() == whole.inputs.len() { whole.clone() } else { batch_parts::request(whole, &part) };
        let result = self.inner.embed(request).await;
        (part, result)
    }

    async fn embed_parts(&self, whole: EmbedRequest, parts: Vec<Part>) -> Result<Embeddings, EmbedError> {
        let mut pending = BatchBisector::new(parts);
        let mut running = FuturesUnordered::new();
        let mut response = ResponseAssembler::new(whole.inputs.len());
        let mut failed: Vec<(usize, EmbedError)> = Vec::new();
        loop {
            while running.len() < self.max_parallel_parts
                && let Some(part) = pending.next_batch()
            {
                running.push(self.embed_part(&whole, part));
            }
            let Some((part, result)) = running.next().await else { break };
            let error = match result {
                Ok(embeddings) => {
                    response.put(embeddings, &part).map_err(|_| self.space_mismatch())?;
                    continue;
                }
                Err(error) => error,
            };
            match failure_action(error, part.len(), whole.partial) {
                FailureAction::Halve => pending.halve(part),
                FailureAction::Bisect(error) => {
                    let inputs = pending.split_failed(part, &error).into_iter();
                    failed.extend(inputs.map(|(row, index)| (index, input_error(&error, row, index))));
                }
                FailureAction::FailPart(error) => {
                    failed.extend(part.into_iter().map(|index| (index, error.clone())));
                }
                FailureAction::FailRequest(error) => return Err(batch_parts::error(error, &part)),
            }
        }
        match failed.first() {
            // A response without a single vector is of no use; the error says more.
            Some((index, error)) if failed.len() == whole.inputs.len() => {
                Err(error.clone().with_inputs(match error.fault {
                    Fault::Caller => {
                        failed.iter().map(|(index, _)| InputError { index: *index, tokens: None }).collect()
                    }
                    _ => vec![InputError { index: *index, tokens: None }],
                }))
            }
            _ => response.finish(failed).ok_or_else(|| EmbedError::internal("a request without inputs")),
        }
    }

    fn space_mismatch(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::InvalidUpstreamResponse,
            Fault::Upstream,
            Retry::Backoff,
            format!("'{}' returned vectors of different spaces for parts of one request", self.model().name),
        )
    }
}

impl Embedder for Splitter {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let parts = packing::plan(&*self.inner, &request.inputs);
            self.embed_parts(request, parts).await
        })
    }
}

/// What to do about a part that failed.
enum FailureAction {
    /// Embed the halves of the part.
    Halve,
    /// Find the inputs at fault.
    Bisect(EmbedError),
    /// All inputs of the part fail.
    FailPart(EmbedError),
    /// The whole request fails.
    FailRequest(EmbedError),
}

fn failure_action(error: EmbedError, inputs: usize, partial: bool) -> FailureAction {
    if error.kind == ErrorKind::BatchTooLarge && inputs > 1 {
        return FailureAction::Halve;
    }
    let error = if error.kind == ErrorKind::BatchTooLarge { input_too_large(&error) } else { error };
    if !partial {
        return FailureAction::FailRequest(error);
    }
    let is_about_all = error.fault != Fault::Caller && error.inputs.is_empty();
    if is_about_all || inputs == 1 {
        return FailureAction::FailPart(error);
    }
    if error.inputs.is_empty() && !may_concern_single_inputs(error.kind) {
        return FailureAction::FailRequest(error);
    }
    FailureAction::Bisect(error)
}

/// Whether an error that names no inputs may be caused by some of them.
fn may_concern_single_inputs(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidRequest | ErrorKind::InputTooLong)
}

/// The error of the input at `index` of the request, which had index `row` in the part that failed with `error`.
fn input_error(error: &EmbedError, row: usize, index: usize) -> EmbedError {
    let named = error.inputs.iter().find(|input| input.index == row);
    error.clone().with_inputs(named.map(|input| InputError { index, ..*input }).into_iter().collect())
}

/// The error of one input that is too large for a call of its own: only the caller can shorten it.
fn input_too_large(error: &EmbedError) -> EmbedError {
    EmbedError::new(ErrorKind::InputTooLong, Fault::Caller, Retry::Never, error.message.clone())
        .with_inputs(vec![InputError { index: 0, tokens: None }])
}
