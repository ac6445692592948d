//! The errors of the crate. Every variant about a file names the file and the key or tensor.

use std::path::PathBuf;

/// Why a model directory cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("{file}: {source}", file = file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has the wrong format.
    #[error("{file}: is not valid as {expected}: {reason}", file = file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The position and kind of the mistake.
        reason: String,
    },
    /// The model requires a feature that this engine does not support.
    #[error("{file}: {key} is {found}; this engine supports {supported}", file = file.display())]
    Unsupported {
        /// The file that requires it.
        file: PathBuf,
        /// The key in it.
        key: String,
        /// The key's value.
        found: String,
        /// The supported values.
        supported: String,
    },
    /// A tensor is missing.
    #[error("{file}: tensor '{tensor}' is missing", file = file.display())]
    MissingTensor {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("{file}: tensor '{tensor}' has shape {found:?}, but config.json requires {expected:?}", file = file.display())]
    WrongShape {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape that the configuration requires.
        expected: Vec<usize>,
        /// The tensor's shape.
        found: Vec<usize>,
    },
    /// A tensor contains a value that is not finite. Every vector would contain such values.
    #[error("{file}: tensor '{tensor}' contains a value that is not finite", file = file.display())]
    NotFinite {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The tokenizer produces ids that have no embedding.
    #[error("{file}: has token ids up to {largest}, but the weights have {rows} rows; use files of the same model", file = file.display())]
    TokenizerMismatch {
        /// The tokenizer file.
        file: PathBuf,
        /// The largest id.
        largest: usize,
        /// Rows of the word embeddings.
        rows: usize,
    },
    /// An option of the caller is not possible for this model.
    #[error("{setting}: {reason}")]
    Setting {
        /// The option's name.
        setting: &'static str,
        /// The reason, and the possible values.
        reason: String,
    },
}

/// Why a batch could not be encoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The tokens cannot come from this model's tokenizer. Nothing is computed, because a wrong vector is worse than
    /// none.
    #[error("text {text} of the batch has tokens of another model: {reason}")]
    ForeignTokens {
        /// Index of the text in the batch.
        text: usize,
        /// The id or length that the model does not support.
        reason: String,
    },
    /// The model computed a value that is not finite: its weights are finite, but their products overflow.
    #[error(
        "the vector of text {text} of the batch contains a value that is not finite; the model's weights overflow"
    )]
    NotFinite {
        /// Index of the text in the batch.
        text: usize,
    },
}

/// Why a text could not be tokenized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The text exceeds the limit, and truncation is off.
    #[error("the text has {tokens} tokens, but the model accepts at most {limit}")]
    TooLong {
        /// The text's length, special tokens included.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The tokenizer library failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}
