//! model2vec: static models without an encoder. A token has one vector, independent of its context, and a text's vector
//! is the mean of its tokens' vectors. Tokens may share vectors and have weights. The reference is the model2vec
//! package's `StaticModel`.

use std::path::{Path, PathBuf};

use super::embedding_table::EmbeddingTable;
use crate::{
    LoadError, Precision, Tokens,
    files::Config,
    weights::{Tensors, WeightFiles},
};

/// Tensor of the vectors.
const VECTORS: &str = "embeddings";
/// Tensor that maps each token to the row of its vector.
const MAPPING: &str = "mapping";
/// Tensor of the factor of each token's vector.
const WEIGHTS: &str = "weights";

/// The reference's limit for configurations without `max_length`.
const DEFAULT_MAX_LENGTH: usize = 512;
/// The limit for configurations whose `max_length` is null.
const UNLIMITED: usize = 1 << 20;

/// The description of a static model.
#[derive(Clone, Debug)]
pub(crate) struct StaticConfig {
    pub(crate) width: usize,
    /// Number of token ids that have a vector.
    pub(crate) vocabulary: usize,
    /// Maximum tokens of a text.
    pub(crate) max_positions: usize,
    /// Number of distinct vectors.
    vectors: usize,
}

impl StaticConfig {
    /// Reads the sizes from the tensors, because the configuration is not reliable.
    pub(crate) fn read(config: &Config, weights: &[PathBuf]) -> Result<Self, LoadError> {
        let max_positions = match config.is_null("max_length") {
            true => UNLIMITED,
            false => config.size_or("max_length", DEFAULT_MAX_LENGTH)?.min(UNLIMITED),
        };
        let files = WeightFiles::open(weights)?;
        let tensors = files.tensors()?;
        let (vectors, width) = match *tensors.shape(VECTORS)? {
            [vectors, width] if vectors > 0 && width > 0 && width <= crate::files::MAX_WIDTH => {
                (vectors, width)
            }
            ref other => {
                let key = format!("the shape of tensor '{VECTORS}'");
                return Err(config.unsupported(
                    &key,
                    &format!("{other:?}"),
                    "a matrix with one row per vector",
                ));
            }
        };
        let vocabulary =
            if tensors.has(MAPPING) { tensors.shape(MAPPING)?.iter().product() } else { vectors };
        Ok(Self { width, vocabulary, max_positions, vectors })
    }

    /// Reads the vectors, the mapping and the weights.
    pub(crate) fn load(
        &self,
        tensors: &Tensors<'_>,
        precision: Precision,
    ) -> Result<StaticVectors, LoadError> {
        let mut vectors = EmbeddingTable::new(self.vectors, self.width, precision);
        tensors.each_row(VECTORS, [self.vectors, self.width], |row| vectors.push(row))?;
        let tokens = &[self.vocabulary];
        Ok(StaticVectors {
            width: self.width,
            vocabulary: self.vocabulary,
            vectors,
            mapping: tensors
                .has(MAPPING)
                .then(|| tensors.indices(MAPPING, self.vocabulary, self.vectors))
                .transpose()?,
            weights: match tensors.has(WEIGHTS) {
                true => Some(tensors.get(WEIGHTS, tokens)?.into_owned()),
                false => None,
            },
        })
    }
}

/// A static model in memory.
pub(crate) struct StaticVectors {
    pub(crate) width: usize,
    pub(crate) vocabulary: usize,
    /// `[vectors × width]`
    vectors: EmbeddingTable,
    /// Row of each token; `None` if token ids are rows.
    mapping: Option<Vec<u32>>,
    /// Factor of each token's vector; `None` for 1.
    weights: Option<Vec<f32>>,
}

impl StaticVectors {
    pub(crate) fn bytes(&self) -> usize {
        let mapping = self.mapping.as_ref().map_or(0, |mapping| size_of_val(&**mapping));
        let weights = self.weights.as_ref().map_or(0, |weights| size_of_val(&**weights));
        self.vectors.bytes() + mapping + weights
    }

    /// Writes the mean of a text's token vectors to `out`; zeros for a text without tokens.
    pub(crate) fn mean(&self, text: &Tokens, out: &mut [f32]) {
        out.fill(0.0);
        for id in text.ids() {
            let token = *id as usize;
            let row = self.mapping.as_ref().map_or(token, |mapping| mapping[token] as usize);
            let weight = self.weights.as_ref().map_or(1.0, |weights| weights[token]);
            self.vectors.add_scaled(row, weight, out);
        }
        let scale = 1.0 / text.len().max(1) as f32;
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

/// The unknown token of a `tokenizer.json`, if it has one. The reference drops it from texts.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unknown_token(tokenizer: &Path) -> Result<Option<String>, LoadError> {
    let file =
        std::fs::read(tokenizer).map_err(|source| LoadError::Io { file: tokenizer.to_path_buf(), source })?;
    let content: serde_json::Value = serde_json::from_slice(&file).unwrap_or_default();
    let model = &content["model"];
    // Unigram models store the unknown token's id.
    let by_id = || model["vocab"][model["unk_id"].as_u64()? as usize][0].as_str();
    Ok(model["unk_token"].as_str().or_else(by_id).map(str::to_owned))
}
