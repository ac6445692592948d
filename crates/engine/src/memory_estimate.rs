//! Predictions from a model's files, before they are loaded: memory use, precision and fingerprint.

use crate::{LoadError, LoadOptions, ModelFiles, Precision, kernels::Kernels, weights::WeightFiles};

/// Bytes in memory per byte of the tokenizer file: tokens as keys and as values, with their hash tables.
const TOKENIZER_BYTES_PER_FILE_BYTE: u64 = 20;
/// Tokens per thread of a typical call. A longer text forms a call of its own.
const TOKENS_PER_THREAD: usize = 512;
/// Bytes of buffers per token and hidden dimension: its vector, queries, keys and values twice, and scratch.
const BUFFER_BYTES: usize = 40;

impl ModelFiles {
    /// The precision that the loaded model will use, never `Auto`.
    pub fn precision(&self, options: &LoadOptions) -> Precision {
        let kernels = Kernels::select(options.kernels);
        kernels.map_or(options.precision, |kernels| kernels.resolve(options.precision))
    }

    /// Upper bound of the loaded model's memory in bytes with `threads` computing threads: weights in the resulting
    /// precision, tokenizer, and buffers of a call. Reads only the headers of the weight files.
    ///
    /// # Errors
    /// A weight file is missing or damaged.
    pub fn memory(&self, options: &LoadOptions, threads: usize) -> Result<u64, LoadError> {
        let precision = self.precision(options);
        let weights = WeightFiles::open(&self.weights)?;
        let mut bytes = 0;
        for (name, shape) in weights.shapes()? {
            let values: u64 = shape.iter().map(|size| *size as u64).product();
            // Embedding tables are stored in a wider type than matrices.
            let is_table = name.contains("embed") || shape.first() == Some(&self.info().vocabulary);
            bytes += values
                * match precision {
                    _ if shape.len() < 2 => 4,
                    Precision::F32 | Precision::Auto => 4,
                    Precision::Bf16 => 2,
                    Precision::Int8 if is_table => 2,
                    Precision::Int8 => 1,
                };
        }
        let tokenizer = std::fs::metadata(self.directory.join("tokenizer.json")).map_or(0, |file| file.len());
        let tokens = (TOKENS_PER_THREAD * threads).max(options.max_length.unwrap_or(self.info().max_tokens));
        // A static model has no buffers.
        let buffers = if self.info().layers == 0 { 0 } else { tokens * self.modules.hidden * BUFFER_BYTES };
        // The last panel of a packed matrix is padded.
        Ok(bytes + bytes / 32 + TOKENIZER_BYTES_PER_FILE_BYTE * tokenizer + buffers as u64)
    }

    /// Computes [`Model::fingerprint`](crate::Model::fingerprint) without loading the model. Reads all of its files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fingerprint(&self) -> Result<String, LoadError> {
        crate::model::fingerprint(self, &WeightFiles::open(&self.weights)?)
    }
}
