//! What a model will take in memory, and which vectors it will give, told from its files before they are loaded.

use crate::{LoadError, LoadOptions, ModelFiles, Precision, kernels::Kernels, weights::WeightFiles};

/// Bytes that a tokenizer takes for each byte of its file: tokens as keys and as values, with their hash tables.
const TOKENIZER_FACTOR: u64 = 20;
/// Tokens for each thread of a usual call; a longer text makes a call of its own.
const CALL_TOKENS: usize = 512;
/// Bytes of buffers for each token and hidden number: its vector, queries, keys and values twice, and scratch.
const BUFFER_BYTES: usize = 40;

impl ModelFiles {
    /// The precision that will compute, never `Auto`.
    pub fn precision(&self, options: &LoadOptions) -> Precision {
        let kernels = Kernels::select(options.kernels);
        kernels.map_or(options.precision, |kernels| kernels.resolve(options.precision))
    }

    /// Bytes that the model will take in memory at most when `threads` compute: its weights in the precision that will
    /// compute, its tokenizer, and the buffers of a call. Reads the weight files' headers only.
    ///
    /// # Errors
    /// A weight file that is missing or damaged.
    pub fn memory(&self, options: &LoadOptions, threads: usize) -> Result<u64, LoadError> {
        let precision = self.precision(options);
        let weights = WeightFiles::open(&self.weights)?;
        let mut bytes = 0;
        for (name, shape) in weights.shapes()? {
            let numbers: u64 = shape.iter().map(|size| *size as u64).product();
            // What is looked up stays wider than what is multiplied.
            let table = name.contains("embed") || shape.first() == Some(&self.info().vocabulary);
            bytes += numbers
                * match precision {
                    _ if shape.len() < 2 => 4,
                    Precision::F32 | Precision::Auto => 4,
                    Precision::Bf16 => 2,
                    Precision::Int8 if table => 2,
                    Precision::Int8 => 1,
                };
        }
        let tokenizer = std::fs::metadata(self.directory.join("tokenizer.json")).map_or(0, |file| file.len());
        let tokens = (CALL_TOKENS * threads).max(options.max_length.unwrap_or(self.info().max_tokens));
        // A static model has none.
        let buffers = if self.info().layers == 0 { 0 } else { tokens * self.modules.hidden * BUFFER_BYTES };
        // Panels are filled up to whole ones.
        Ok(bytes + bytes / 32 + TOKENIZER_FACTOR * tokenizer + buffers as u64)
    }

    /// [`Model::fingerprint`](crate::Model::fingerprint) without loading the model; reads all of its files, though.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn fingerprint(&self) -> Result<String, LoadError> {
        crate::model::fingerprint(self, &WeightFiles::open(&self.weights)?)
    }
}
