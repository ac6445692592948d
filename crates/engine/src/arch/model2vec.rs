//! model2vec: no encoder at all. A token has one vector, whatever stands beside it, and a text's is their mean; tokens
//! may share vectors and have weights. The reference is the model2vec package's `StaticModel`.

use std::path::{Path, PathBuf};

use super::embedding_table::EmbeddingTable;
use crate::{
    LoadError, Precision, Tokens,
    files::Config,
    weights::{Tensors, WeightFiles},
};

const VECTORS: &str = "embeddings";
/// Of each token: which vector is its own.
const ROWS: &str = "mapping";
/// Of each token: what its vector is multiplied by.
const WEIGHTS: &str = "weights";

/// The reference's limit where nothing is said.
const DEFAULT_LENGTH: usize = 512;
/// No text is longer.
const UNLIMITED: usize = 1 << 20;

/// A static model, described.
#[derive(Clone, Debug)]
pub(crate) struct StaticSpec {
    pub(crate) width: usize,
    /// Tokens that have a vector.
    pub(crate) vocabulary: usize,
    /// Most tokens of a text.
    pub(crate) positions: usize,
    vectors: usize,
}

impl StaticSpec {
    /// Sizes are those of the tensors, because the configuration does not say them reliably.
    pub(crate) fn read(config: &Config, weights: &[PathBuf]) -> Result<Self, LoadError> {
        let positions = match config.is_null("max_length") {
            true => UNLIMITED,
            false => config.size_or("max_length", DEFAULT_LENGTH)?.min(UNLIMITED),
        };
        let files = WeightFiles::open(weights)?;
        let tensors = files.tensors()?;
        let (vectors, width) = match *tensors.shape(VECTORS)? {
            [vectors, width] if vectors > 0 && width > 0 && width <= crate::files::MAX_WIDTH => {
                (vectors, width)
            }
            ref other => {
                let key = format!("the shape of tensor '{VECTORS}'");
                return Err(config.unsupported(&key, &format!("{other:?}"), "a row for each vector"));
            }
        };
        let vocabulary = if tensors.has(ROWS) { tensors.shape(ROWS)?.iter().product() } else { vectors };
        Ok(Self { width, vocabulary, positions, vectors })
    }

    /// Reads the vectors.
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
            rows: tensors
                .has(ROWS)
                .then(|| tensors.indices(ROWS, (self.vocabulary, self.vectors)))
                .transpose()?,
            weights: match tensors.has(WEIGHTS) {
                true => Some(tensors.get(WEIGHTS, tokens)?.into_owned()),
                false => None,
            },
        })
    }
}

/// The vectors of all tokens.
pub(crate) struct StaticVectors {
    pub(crate) width: usize,
    pub(crate) vocabulary: usize,
    /// `[vectors × width]`
    vectors: EmbeddingTable,
    rows: Option<Vec<u32>>,
    weights: Option<Vec<f32>>,
}

impl StaticVectors {
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, |rows| size_of_val(&**rows));
        let weights = self.weights.as_ref().map_or(0, |weights| size_of_val(&**weights));
        self.vectors.bytes() + rows + weights
    }

    /// The mean of a text's tokens; zeros for a text without tokens.
    pub(crate) fn mean(&self, text: &Tokens, out: &mut [f32]) {
        out.fill(0.0);
        for id in text.ids() {
            let token = *id as usize;
            let row = self.rows.as_ref().map_or(token, |rows| rows[token] as usize);
            let weight = self.weights.as_ref().map_or(1.0, |weights| weights[token]);
            self.vectors.add_scaled(row, weight, out);
        }
        let scale = 1.0 / text.len().max(1) as f32;
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

/// What the reference leaves out of a text: the unknown token.
pub(crate) fn unknown(tokenizer: &Path) -> Result<Option<String>, LoadError> {
    let file =
        std::fs::read(tokenizer).map_err(|source| LoadError::Io { file: tokenizer.to_path_buf(), source })?;
    let content: serde_json::Value = serde_json::from_slice(&file).unwrap_or_default();
    let model = &content["model"];
    // Unigrams have it by number.
    let by_number = || model["vocab"][model["unk_id"].as_u64()? as usize][0].as_str();
    Ok(model["unk_token"].as_str().or_else(by_number).map(str::to_owned))
}
