//! What stands around a transformer that another runtime computes, the same as around our own: how long texts may be,
//! the tokenizer before it, pooling and what follows behind it. Read from the directory's files, whatever the
//! architecture: what the transformer does inside is the runtime's business.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    KernelChoice, LoadError, Pooling, Prompts, TokenizeError, Tokens, TruncationSide,
    files::{self, Modules, TextLimits},
    kernels::Kernels,
    pooling::pool,
    post_pooling::PostPoolingLayers,
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// Configuration of a model directory, for a transformer that is computed elsewhere.
#[derive(Clone, Debug)]
pub struct TextFiles {
    directory: PathBuf,
    modules: Modules,
    limits: TextLimits,
    prompts: Prompts,
    config: TextConfig,
    positions: usize,
}

/// What is needed of `config.json`, under the names that architectures have for it.
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

/// Positions where `config.json` says nothing: models without learnt positions read texts of any length.
const MANY_POSITIONS: usize = 1 << 20;

impl TextFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A missing or malformed file, or one that asks for what we do not do, by file and key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config: TextConfig = files::read(&directory.join("config.json"))?;
        // These begin counting behind the padding token.
        let first = match config.model_type.as_str() {
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" | "xlm-roberta-xl" => 2,
            _ => 0,
        };
        let positions = config.max_position_embeddings.unwrap_or(MANY_POSITIONS).saturating_sub(first).max(1);
        Ok(Self {
            directory: directory.to_path_buf(),
            modules: files::read_modules(directory, config.hidden_size)?,
            limits: files::read_sentence(directory, positions)?,
            prompts: files::read_prompts(directory)?,
            config,
            positions,
        })
    }

    /// The architecture's name in `config.json`; may be empty.
    pub fn architecture(&self) -> &str {
        &self.config.model_type
    }

    /// Numbers in a token's vector.
    pub fn hidden(&self) -> usize {
        self.modules.hidden
    }

    /// Numbers in a text's vector.
    pub fn dimensions(&self) -> usize {
        self.modules.dimensions()
    }

    /// Most tokens of one text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.limits.max_tokens
    }

    /// How token vectors become the text's.
    pub fn pooling(&self) -> Pooling {
        self.modules.pooling
    }

    /// What the model wants put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The files that, beside the transformer's own, say which vectors come out.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.directory.join("tokenizer.json")).chain(self.modules.files())
    }

    /// Reads tokenizer and what follows pooling. `max_length` is the most tokens of one text, where it should not be the
    /// model's own limit.
    ///
    /// # Errors
    /// Damaged or contradictory files; a `max_length` that the model cannot meet.
    pub fn load(&self, max_length: Option<usize>) -> Result<TextModel, LoadError> {
        let limit = max_length.unwrap_or(self.limits.max_tokens);
        if limit == 0 || limit > self.positions {
            return Err(LoadError::Setting {
                setting: "max_length",
                reason: format!("{limit} is not in 1 to {}, the positions of the model", self.positions),
            });
        }
        let kernels = Kernels::select(KernelChoice::Auto).ok_or_else(|| LoadError::Setting {
            setting: "kernels",
            reason: "this CPU has none of ours".into(),
        })?;
        let tokenizer = Tokenizer::load(&TokenizerFiles {
            file: &self.directory.join("tokenizer.json"),
            limit,
            rows: self.config.vocab_size.unwrap_or(usize::MAX),
            lowercase: self.limits.lowercase,
            leaves_out: None,
        })?;
        let head = PostPoolingLayers::load(&self.modules, kernels)?;
        Ok(TextModel { tokenizer, head, pooling: self.modules.pooling, prompts: self.prompts.clone() })
    }
}

/// The text's side of a model in memory.
pub struct TextModel {
    tokenizer: Tokenizer,
    head: PostPoolingLayers,
    pooling: Pooling,
    prompts: Prompts,
}

impl TextModel {
    /// A text as the model reads it.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] with [`TruncationSide::All`], or what the tokenizer says.
    pub fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.tokenizer.tokenize(text, keep)
    }

    /// Tokens of a text before any cut, special tokens included.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        self.tokenizer.count(text)
    }

    /// What the model wants put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Pools one text's token vectors (`[tokens × out.len()]`, no padding) into `out`.
    pub fn pool(&self, tokens: &[f32], out: &mut [f32]) {
        pool(self.pooling, tokens, out);
    }

    /// What follows pooling, for the vectors of all texts; not yet of unit length.
    pub fn finish(&self, pooled: Vec<f32>) -> Vec<f32> {
        self.head.apply(pooled)
    }
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextModel").field("pooling", &self.pooling).finish_non_exhaustive()
    }
}
