//! Tokenizer, pooling and post-pooling steps for a transformer that another runtime computes. They are read from the
//! model directory and behave as in [`Model`](crate::Model). The architecture does not matter here.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    KernelChoice, LoadError, Pooling, Prompts, TokenizeError, Tokens, TruncationSide,
    files::{self, Modules, SentenceConfig},
    kernels::Kernels,
    pooling::pool,
    post_pooling::PostPoolingLayers,
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// The configuration of a model directory, for a transformer that another runtime computes.
#[derive(Clone, Debug)]
pub struct TextFiles {
    directory: PathBuf,
    modules: Modules,
    sentence: SentenceConfig,
    prompts: Prompts,
    config: TextConfig,
    max_positions: usize,
}

/// The required keys of `config.json`, with the aliases that architectures use.
#[derive(Clone, Debug, Deserialize)]
struct TextConfig {
    #[serde(default)]
    model_type: String,
    #[serde(alias = "dim", alias = "d_model", alias = "n_embd")]
    hidden_size: usize,
    #[serde(alias = "n_positions", alias = "max_trained_positions")]
    max_position_embeddings: Option<usize>,
    vocab_size: Option<usize>,
}

/// Positions of a `config.json` without a limit. Models without learned positions accept texts of any length.
const UNLIMITED_POSITIONS: usize = 1 << 20;

impl TextFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A file is missing or malformed, or requires an unsupported feature. The error names the file and the key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config: TextConfig = files::read(&directory.join("config.json"))?;
        // Positions of these architectures start after the padding token's.
        let first_position = match config.model_type.as_str() {
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" | "xlm-roberta-xl" => 2,
            _ => 0,
        };
        let max_positions = config
            .max_position_embeddings
            .unwrap_or(UNLIMITED_POSITIONS)
            .saturating_sub(first_position)
            .max(1);
        Ok(Self {
            directory: directory.to_path_buf(),
            modules: files::read_modules(directory, config.hidden_size)?,
            sentence: files::read_sentence_config(directory, max_positions)?,
            prompts: files::read_prompts(directory)?,
            config,
            max_positions,
        })
    }

    /// `model_type` in `config.json`; may be empty.
    pub fn architecture(&self) -> &str {
        &self.config.model_type
    }

    /// Width of a token vector.
    pub fn hidden(&self) -> usize {
        self.modules.hidden
    }

    /// Length of a text's vector.
    pub fn dimensions(&self) -> usize {
        self.modules.dimensions()
    }

    /// Maximum tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.sentence.max_tokens
    }

    /// How token vectors become the text's vector.
    pub fn pooling(&self) -> Pooling {
        self.modules.pooling
    }

    /// The prompts that the model expects before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The files that determine the vectors, besides the transformer's own files.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.directory.join("tokenizer.json")).chain(self.modules.files())
    }

    /// Loads the tokenizer and the post-pooling steps. `max_length` replaces the model's own maximum of tokens.
    ///
    /// # Errors
    /// Files are damaged or contradictory, or `max_length` is out of range.
    pub fn load(&self, max_length: Option<usize>) -> Result<TextModel, LoadError> {
        let limit = max_length.unwrap_or(self.sentence.max_tokens);
        if limit == 0 || limit > self.max_positions {
            return Err(LoadError::Setting {
                setting: "max_length",
                reason: format!(
                    "{limit} is out of range; the model has positions 1 to {}",
                    self.max_positions
                ),
            });
        }
        let kernels = Kernels::select(KernelChoice::Auto).ok_or_else(|| LoadError::Setting {
            setting: "kernels",
            reason: "this CPU is not supported".into(),
        })?;
        let tokenizer = Tokenizer::load(&TokenizerFiles {
            file: &self.directory.join("tokenizer.json"),
            limit,
            rows: self.config.vocab_size.unwrap_or(usize::MAX),
            lowercase: self.sentence.lowercase,
            static_unknown: None,
        })?;
        let post_pooling = PostPoolingLayers::load(&self.modules, kernels)?;
        Ok(TextModel {
            tokenizer,
            post_pooling,
            pooling: self.modules.pooling,
            prompts: self.prompts.clone(),
        })
    }
}

/// Tokenizer, pooling and post-pooling steps of a model in memory.
pub struct TextModel {
    tokenizer: Tokenizer,
    post_pooling: PostPoolingLayers,
    pooling: Pooling,
    prompts: Prompts,
}

impl TextModel {
    /// Tokenizes a text and truncates it to [`TextFiles::max_tokens`].
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] with [`TruncationSide::None`], or [`TokenizeError::Tokenizer`].
    pub fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.tokenizer.tokenize(text, truncation)
    }

    /// Number of tokens of a text before truncation, special tokens included.
    ///
    /// # Errors
    /// [`TokenizeError::Tokenizer`].
    pub fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        self.tokenizer.count(text)
    }

    /// The prompts that the model expects before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Pools one text's token vectors (`[tokens × out.len()]`, no padding) into `out`.
    pub fn pool(&self, tokens: &[f32], out: &mut [f32]) {
        pool(self.pooling, tokens, out);
    }

    /// Applies the post-pooling steps to the concatenated vectors of all texts. The result is not normalized.
    pub fn finish(&self, pooled: Vec<f32>) -> Vec<f32> {
        self.post_pooling.apply(pooled)
    }
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextModel").field("pooling", &self.pooling).finish_non_exhaustive()
    }
}
