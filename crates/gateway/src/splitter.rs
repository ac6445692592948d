//! Makes calls that fit a provider's limits out of a request that does not: parts by items, tokens and bytes,
//! asked for in parallel, put together in the caller's order. Where the provider counts differently and says
//! that a part is too large, the part is halved. Where single inputs may fail (`partial`), a part that is
//! refused is searched for them, so that the others are answered.

mod plan;

use std::sync::Arc;

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, InputError, Retry,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    batch_parts::{self, ResponseAssembler},
    delegate::delegate_embedder,
};

/// Splits and merges.
pub struct Splitter {
    inner: Arc<dyn Embedder>,
    parallel: usize,
}

/// Places of inputs in the whole request.
type Part = Vec<usize>;

impl Splitter {
    /// Around `inner`; at most `parallel` parts of a request are asked for at a time.
    pub fn new(inner: Arc<dyn Embedder>, parallel: usize) -> Self {
        Self { inner, parallel: parallel.max(1) }
    }

    async fn ask(&self, whole: &EmbedRequest, part: Part) -> (Part, Result<Embeddings, EmbedError>) {
        let request =
            if part.len() == whole.inputs.len() { whole.clone() } else { batch_parts::request(whole, &part) };
        let answer = self.inner.embed(request).await;
        (part, answer)
    }

    async fn embed_parts(&self, whole: EmbedRequest, parts: Vec<Part>) -> Result<Embeddings, EmbedError> {
        let mut waiting = parts;
        waiting.reverse();
        let mut running = FuturesUnordered::new();
        let mut answer = ResponseAssembler::new(whole.inputs.len());
        let mut failed: Vec<(usize, EmbedError)> = Vec::new();
        loop {
            while running.len() < self.parallel
                && let Some(part) = waiting.pop()
            {
                running.push(self.ask(&whole, part));
            }
            let Some((part, outcome)) = running.next().await else { break };
            match outcome {
                Ok(vectors) => answer.put(vectors, &part).map_err(|_| self.other_space())?,
                Err(error) => match after(error, &part, whole.partial) {
                    PartOutcome::Ask(parts) => waiting.extend(parts.into_iter().rev()),
                    PartOutcome::Lose(lost, ask) => {
                        failed.extend(lost);
                        waiting.extend(ask);
                    }
                    PartOutcome::Fail(error) => return Err(batch_parts::error(error, &part)),
                },
            }
        }
        match failed.first() {
            // An answer without a single vector helps nobody; the failure says more.
            Some((place, error)) if failed.len() == whole.inputs.len() => {
                Err(error.clone().with_inputs(match error.fault {
                    Fault::Caller => {
                        failed.iter().map(|(index, _)| InputError { index: *index, tokens: None }).collect()
                    }
                    _ => vec![InputError { index: *place, tokens: None }],
                }))
            }
            _ => answer.finish(failed).ok_or_else(|| EmbedError::internal("a request without inputs")),
        }
    }

    fn other_space(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::BadUpstreamAnswer,
            Fault::Upstream,
            Retry::Backoff,
            format!("'{}' answered parts of one request with vectors of different kinds", self.model().name),
        )
    }
}

impl Embedder for Splitter {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let parts = plan::plan(&*self.inner, &request.inputs);
            self.embed_parts(request, parts).await
        })
    }
}

/// What follows from a part's failure.
enum PartOutcome {
    /// Ask for these parts instead.
    Ask(Vec<Part>),
    /// These inputs failed; ask for what is left of the part.
    Lose(Vec<(usize, EmbedError)>, Option<Part>),
    /// The request failed.
    Fail(EmbedError),
}

fn after(error: EmbedError, part: &[usize], partial: bool) -> PartOutcome {
    if error.kind == ErrorKind::BatchTooLarge && part.len() > 1 {
        return halves(part);
    }
    let error = if error.kind == ErrorKind::BatchTooLarge { alone_too_large(&error) } else { error };
    if !partial {
        return PartOutcome::Fail(error);
    }
    if error.fault != Fault::Caller || part.len() == 1 {
        return PartOutcome::Lose(part.iter().map(|&place| (place, error.clone())).collect(), None);
    }
    if error.inputs.is_empty() {
        return if about_inputs(error.kind) { halves(part) } else { PartOutcome::Fail(error) };
    }
    let named: Vec<usize> = error.inputs.iter().map(|fault| fault.index).collect();
    let (lost, left): (Vec<usize>, Vec<usize>) = (0..part.len()).partition(|row| named.contains(row));
    if lost.is_empty() {
        return halves(part); // it names inputs that we did not send
    }
    let lost = lost.into_iter().map(|row| {
        let fault = error.inputs.iter().find(|fault| fault.index == row).copied();
        (
            part[row],
            error.clone().with_inputs(
                fault.map(|fault| InputError { index: part[row], ..fault }).into_iter().collect(),
            ),
        )
    });
    let left: Part = left.into_iter().map(|row| part[row]).collect();
    PartOutcome::Lose(lost.collect(), (!left.is_empty()).then_some(left))
}

/// Whether a refusal may be about some of the inputs only.
fn about_inputs(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidRequest | ErrorKind::InputTooLong)
}

fn halves(part: &[usize]) -> PartOutcome {
    let (first, second) = part.split_at(part.len() / 2);
    PartOutcome::Ask(vec![first.to_vec(), second.to_vec()])
}

/// One input that is too large for a call of its own is the caller's to shorten.
fn alone_too_large(error: &EmbedError) -> EmbedError {
    EmbedError::new(ErrorKind::InputTooLong, Fault::Caller, Retry::Never, error.message.clone())
        .with_inputs(vec![InputError { index: 0, tokens: None }])
}
