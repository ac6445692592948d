//! Requests for some of the inputs of a request, and the way back: vectors, failures and input indices of a part are
//! mapped to the indices of the whole request.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{EmbedError, EmbedRequest, Embedder, Embeddings, Input, InputError, TokenCount};

/// A request for the inputs at `indices` of `whole`, with the same options.
pub(crate) fn request(whole: &EmbedRequest, indices: &[usize]) -> EmbedRequest {
    let inputs: Arc<[Input]> = indices.iter().map(|&index| whole.inputs[index].clone()).collect();
    EmbedRequest { inputs, ..whole.clone() }
}

/// The error of a part, with the input indices of the whole request. `indices` are the inputs of the part.
pub(crate) fn error(error: EmbedError, indices: &[usize]) -> EmbedError {
    let inputs = error
        .inputs
        .iter()
        .filter_map(|input| Some(InputError { index: *indices.get(input.index)?, ..*input }))
        .collect();
    error.with_inputs(inputs)
}

/// For each input, whether it was truncated. A response only has the number of truncated inputs. A truncated input has
/// as many tokens as the model's limit; if more inputs than that have so many tokens, the tokenizer decides.
pub(crate) fn truncated_inputs(
    embedder: &dyn Embedder,
    inputs: &[Input],
    response: &Embeddings,
) -> Vec<bool> {
    let mut truncated = vec![false; response.tokens.len()];
    if response.truncated == 0 {
        return truncated;
    }
    let max_tokens = response.served_by.max_tokens.map_or(usize::MAX, NonZeroUsize::get);
    let at_limit: Vec<usize> =
        (0..truncated.len()).filter(|&row| response.tokens[row] as usize >= max_tokens).collect();
    for &row in &at_limit {
        let is_too_long = |text: &str| matches!(embedder.count_tokens(text), TokenCount::Exact(tokens) if tokens > max_tokens);
        truncated[row] = at_limit.len() == response.truncated || inputs[row].text().is_some_and(is_too_long);
    }
    truncated
}

/// Assembles the response to a request from the responses to its parts, in any order.
pub(crate) struct ResponseAssembler {
    inputs: usize,
    whole: Option<Embeddings>,
}

/// Two parts have vectors of different spaces and must not be combined.
pub(crate) struct SpaceMismatch;

impl ResponseAssembler {
    /// For a request with `inputs` inputs.
    pub(crate) fn new(inputs: usize) -> Self {
        Self { inputs, whole: None }
    }

    /// Adds the response to a part. `indices` are the inputs of the part in the whole request.
    pub(crate) fn put(&mut self, part: Embeddings, indices: &[usize]) -> Result<(), SpaceMismatch> {
        if self.whole.is_none()
            && indices.len() == self.inputs
            && indices.iter().enumerate().all(|(row, index)| row == *index)
        {
            self.whole = Some(part); // one part is the whole: no copy needed
            return Ok(());
        }
        let Embeddings { data, dim, space, tokens, billed_tokens, truncated, failed, served_by } = part;
        let whole = self.whole.get_or_insert_with(|| Embeddings {
            data: vec![0.0; self.inputs * dim],
            dim,
            space: space.clone(),
            tokens: vec![0; self.inputs],
            billed_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            served_by,
        });
        if whole.dim != dim || whole.space != space {
            return Err(SpaceMismatch);
        }
        for (row, &index) in indices.iter().enumerate() {
            whole.data[index * dim..][..dim].copy_from_slice(&data[row * dim..][..dim]);
            whole.tokens[index] = tokens[row];
        }
        whole.billed_tokens += billed_tokens;
        whole.truncated += truncated;
        whole.failed.extend(failed.into_iter().map(|(row, failure)| (indices[row], error(failure, indices))));
        Ok(())
    }

    /// The whole response, with `failed` as additional failed inputs. `None` without any part.
    pub(crate) fn finish(self, failed: Vec<(usize, EmbedError)>) -> Option<Embeddings> {
        let mut whole = self.whole?;
        whole.failed.extend(failed);
        whole.failed.sort_by_key(|(index, _)| *index);
        Some(whole)
    }
}
