//! The result of an embedding request: vectors as one flat array, with token counts.

use crate::{EmbedError, ModelInfo, SpaceId};

/// The vectors of one request, in input order.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `[inputs × dim]`, row-major. The row of a failed input is all zeros.
    pub data: Vec<f32>,
    /// Numbers in one vector.
    pub dim: usize,
    /// The space of the vectors. Only vectors of one space can be compared.
    pub space: SpaceId,
    /// Tokens that the model read for each input, with special tokens.
    pub tokens: Vec<u32>,
    /// Tokens that the vendor charged for; zero for local models.
    pub billed_tokens: u64,
    /// Number of inputs that were truncated to the model's token limit.
    pub truncated: usize,
    /// Inputs that failed alone, by index. Always empty unless [`EmbedRequest::partial`](crate::EmbedRequest::partial)
    /// is set.
    pub failed: Vec<(usize, EmbedError)>,
    /// The model that computed the vectors. It differs from the requested model when a fallback was used.
    pub served_by: std::sync::Arc<ModelInfo>,
}

impl Embeddings {
    /// Iterates over the vectors, one per input.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim.max(1))
    }

    /// The sum of [`tokens`](Self::tokens) over all inputs.
    pub fn total_tokens(&self) -> u64 {
        self.tokens.iter().map(|&tokens| u64::from(tokens)).sum()
    }
}
