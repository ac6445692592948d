//! What can be wrong with a model directory or a text. Every variant names the file and the place in it.

use std::path::PathBuf;

/// Why a model directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("{file}: {source}", file = file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{file}: is not readable as {expected}: {reason}", file = file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// Where it stopped being that.
        reason: String,
    },
    /// The model asks for something that this engine does not do.
    #[error("{file}: {key} is {found}; this engine supports {supported}", file = file.display())]
    Unsupported {
        /// The file that asks for it.
        file: PathBuf,
        /// The key in it.
        key: String,
        /// What it says.
        found: String,
        /// What would work.
        supported: String,
    },
    /// A tensor is not there.
    #[error("{file}: tensor '{tensor}' is missing", file = file.display())]
    MissingTensor {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has another shape than the configuration promises.
    #[error("{file}: tensor '{tensor}' has shape {found:?}, config.json promises {expected:?}", file = file.display())]
    WrongShape {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the configuration promises.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// A tensor holds a number that is not finite; every vector would be poisoned.
    #[error("{file}: tensor '{tensor}' holds a number that is not finite", file = file.display())]
    NotFinite {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The tokenizer makes ids that the weights do not know.
    #[error("{file}: makes token ids up to {largest}, but the weights have {rows} rows; the files are of two models", file = file.display())]
    TokenizerMismatch {
        /// The tokenizer file.
        file: PathBuf,
        /// The largest id.
        largest: usize,
        /// Rows of the word embeddings.
        rows: usize,
    },
    /// A setting of the caller cannot be met by this model.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Why not, and what would work.
        reason: String,
    },
}

/// Why a batch has no vectors.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Tokens that this model cannot have made: a wrong vector would be worse than none.
    #[error("text {text} of the batch has tokens of another model: {reason}")]
    ForeignTokens {
        /// Its place in the batch.
        text: usize,
        /// What this model does not have.
        reason: String,
    },
    /// The model computed something that is no number: finite weights whose products are not.
    #[error(
        "the vector of text {text} of the batch holds a number that is not finite; the model's weights overflow"
    )]
    NotFinite {
        /// Its place in the batch.
        text: usize,
    },
}

/// Why a text has no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// Longer than the model reads, and not to be cut.
    #[error("{tokens} tokens, the model reads {limit}")]
    TooLong {
        /// Its length, special tokens included.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The tokenizer refused it.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}
