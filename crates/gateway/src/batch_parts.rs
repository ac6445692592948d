//! Some inputs of a request as a request of their own, and the way back: whoever asks for a part must put
//! vectors, failures and the places in error messages where the caller expects them.

use std::sync::Arc;

use embeddery_core::{EmbedError, EmbedRequest, Embedder, Embeddings, Input, InputError, TokenCount};

/// A request for the inputs at these places, everything else as in `whole`.
pub(crate) fn request(whole: &EmbedRequest, places: &[usize]) -> EmbedRequest {
    let inputs: Arc<[Input]> = places.iter().map(|&place| whole.inputs[place].clone()).collect();
    EmbedRequest { inputs, ..whole.clone() }
}

/// An error about a part, with the places that its inputs have in the whole.
pub(crate) fn error(error: EmbedError, places: &[usize]) -> EmbedError {
    let inputs = error
        .inputs
        .iter()
        .filter_map(|fault| Some(InputError { index: *places.get(fault.index)?, ..*fault }))
        .collect();
    error.with_inputs(inputs)
}

/// Which inputs were cut to the model's limit. An answer only says how many; a cut one has as many tokens as
/// the model reads, and where that is not enough to tell, the model's own tokenizer knows.
pub(crate) fn truncated_inputs(embedder: &dyn Embedder, inputs: &[Input], answer: &Embeddings) -> Vec<bool> {
    let mut cut = vec![false; answer.tokens.len()];
    if answer.truncated == 0 {
        return cut;
    }
    let most = answer.served_by.max_tokens.map_or(usize::MAX, std::num::NonZeroUsize::get);
    let full: Vec<usize> = (0..cut.len()).filter(|&row| answer.tokens[row] as usize >= most).collect();
    for &row in &full {
        let too_long =
            |text: &str| matches!(embedder.count_tokens(text), TokenCount::Exact(tokens) if tokens > most);
        cut[row] = full.len() == answer.truncated || inputs[row].text().is_some_and(too_long);
    }
    cut
}

/// An answer for `inputs` inputs that is filled row by row, from parts in any order.
pub(crate) struct ResponseAssembler {
    inputs: usize,
    made: Option<Embeddings>,
}

/// Two parts of one answer that may not stand in one answer.
pub(crate) struct SpaceMismatch;

impl ResponseAssembler {
    pub(crate) fn new(inputs: usize) -> Self {
        Self { inputs, made: None }
    }

    /// Puts a part's rows to their places.
    pub(crate) fn put(&mut self, part: Embeddings, places: &[usize]) -> Result<(), SpaceMismatch> {
        if self.made.is_none()
            && places.len() == self.inputs
            && places.iter().enumerate().all(|(i, p)| i == *p)
        {
            self.made = Some(part); // the whole in one part: nothing to move
            return Ok(());
        }
        let Embeddings { data, dim, space, tokens, billed_tokens, truncated, failed, served_by } = part;
        let whole = self.made.get_or_insert_with(|| Embeddings {
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
        for (row, &place) in places.iter().enumerate() {
            whole.data[place * dim..][..dim].copy_from_slice(&data[row * dim..][..dim]);
            whole.tokens[place] = tokens[row];
        }
        whole.billed_tokens += billed_tokens;
        whole.truncated += truncated;
        whole.failed.extend(failed.into_iter().map(|(row, failure)| (places[row], error(failure, places))));
        Ok(())
    }

    /// The answer, with these inputs failed besides; `None` when no part came.
    pub(crate) fn finish(self, failed: Vec<(usize, EmbedError)>) -> Option<Embeddings> {
        let mut whole = self.made?;
        whole.failed.extend(failed);
        whole.failed.sort_by_key(|(place, _)| *place);
        Some(whole)
    }
}
