//! What is answered: vectors as one flat array, with what was counted on the way.

use crate::{EmbedError, ModelInfo, SpaceId};

/// The vectors of one request, in the order of its inputs.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `[inputs × dim]`, row major; the row of a failed input is zeros.
    pub data: Vec<f32>,
    /// Length of one vector.
    pub dim: usize,
    /// Which other vectors these may be compared with.
    pub space: SpaceId,
    /// Tokens the model read for each input, special tokens included.
    pub tokens: Vec<u32>,
    /// Tokens a vendor charged for; zero for local models.
    pub billed_tokens: u64,
    /// How many inputs were cut to the model's limit.
    pub truncated: usize,
    /// Inputs that failed alone, by index; empty unless the request allows partial answers.
    pub failed: Vec<(usize, EmbedError)>,
    /// The model that answered: not the one asked for when a fallback served.
    pub served_by: std::sync::Arc<ModelInfo>,
}

impl Embeddings {
    /// One vector per input.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim.max(1))
    }

    /// Tokens over all inputs.
    pub fn total_tokens(&self) -> u64 {
        self.tokens.iter().map(|&tokens| u64::from(tokens)).sum()
    }
}
