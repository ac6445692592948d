//! A model directory's configuration, read and checked, without its weights.
//!
//! What sentence-transformers reads is read, in its order: `modules.json` says which parts there are,
//! `config.json` what the transformer is, `1_Pooling/config.json` how tokens become one vector,
//! `sentence_bert_config.json` how long a text may be. What we cannot do is refused by name here, because a
//! wrong vector is worse than none.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{LoadError, LoadOptions, Model};

/// Configuration of a model directory. Cheap to keep and to clone; [`load`](Self::load) brings the weights.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    pub(crate) directory: PathBuf,
    pub(crate) bert: BertConfig,
    info: ModelInfo,
}

/// What is known of a model before its weights are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The architecture's name in `config.json`.
    pub architecture: &'static str,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Most tokens of one text, special tokens included.
    pub max_tokens: usize,
    /// Most tokens that the weights have positions for; `max_length` may raise `max_tokens` up to it.
    pub positions: usize,
    /// Layers.
    pub layers: usize,
    /// Rows of the word embeddings.
    pub vocabulary: usize,
    /// How token vectors become the text's.
    pub pooling: Pooling,
    /// Bytes of the weight file.
    pub weight_bytes: u64,
}

/// How token vectors become the text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all tokens, special ones included.
    Mean,
    /// The first token's.
    Cls,
}

/// What `config.json` says of a BERT.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BertConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    #[serde(default = "two")]
    pub(crate) type_vocab_size: usize,
    #[serde(default = "tiny")]
    pub(crate) layer_norm_eps: f32,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn two() -> usize {
    2
}

fn tiny() -> f32 {
    1e-12
}

fn gelu() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

impl ModelFiles {
    /// Reads and checks the configuration files.
    ///
    /// # Errors
    /// A missing or malformed file, or a model that this engine cannot run, by file and key.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let config_file = directory.join("config.json");
        let architecture: Architecture = read(&config_file)?;
        if architecture.model_type != "bert" {
            return Err(unsupported(&config_file, "model_type", &architecture.model_type, "bert"));
        }
        let bert: BertConfig = read(&config_file)?;
        check(&config_file, &bert)?;
        let modules = modules(directory)?;
        let weights = directory.join("model.safetensors");
        let weight_bytes = match fs::metadata(&weights) {
            Ok(metadata) => metadata.len(),
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && directory.join("model.safetensors.index.json").is_file() =>
            {
                let supported = "one file model.safetensors";
                return Err(unsupported(
                    &directory.join("model.safetensors.index.json"),
                    "weights",
                    "in several files",
                    supported,
                ));
            }
            Err(source) => return Err(LoadError::Io { file: weights, source }),
        };
        let info = ModelInfo {
            architecture: "bert",
            dimensions: bert.hidden_size,
            max_tokens: max_tokens(&modules.transformer, directory, bert.max_position_embeddings)?,
            positions: bert.max_position_embeddings,
            layers: bert.num_hidden_layers,
            vocabulary: bert.vocab_size,
            pooling: modules.pooling,
            weight_bytes,
        };
        Ok(Self { directory: directory.to_path_buf(), bert, info })
    }

    /// What is known so far.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Reads weights and tokenizer and makes the model ready to compute.
    ///
    /// # Errors
    /// Damaged or contradictory files, by file and tensor; a setting that the model cannot meet.
    pub fn load(&self, options: &LoadOptions) -> Result<Model, LoadError> {
        Model::load(self, options)
    }
}

#[derive(Deserialize)]
struct Architecture {
    #[serde(default)]
    model_type: String,
}

/// Refuses what would silently give other vectors than the reference, and sizes that no model has.
fn check(file: &Path, bert: &BertConfig) -> Result<(), LoadError> {
    if bert.hidden_act != "gelu" {
        return Err(unsupported(file, "hidden_act", &bert.hidden_act, "gelu (exact)"));
    }
    if bert.position_embedding_type != "absolute" {
        return Err(unsupported(file, "position_embedding_type", &bert.position_embedding_type, "absolute"));
    }
    let sizes = [
        ("hidden_size", bert.hidden_size),
        ("num_hidden_layers", bert.num_hidden_layers),
        ("num_attention_heads", bert.num_attention_heads),
        ("intermediate_size", bert.intermediate_size),
        ("vocab_size", bert.vocab_size),
        ("max_position_embeddings", bert.max_position_embeddings),
        ("type_vocab_size", bert.type_vocab_size),
    ];
    for (key, size) in sizes {
        if size == 0 || size > 1 << 24 {
            return Err(unsupported(file, key, &size.to_string(), "1 to 16777216"));
        }
    }
    if !bert.hidden_size.is_multiple_of(bert.num_attention_heads) {
        let heads =
            format!("{}, which does not divide hidden_size {}", bert.num_attention_heads, bert.hidden_size);
        return Err(unsupported(file, "num_attention_heads", &heads, "a divisor of hidden_size"));
    }
    if !(bert.layer_norm_eps > 0.0 && bert.layer_norm_eps < 1.0) {
        return Err(unsupported(
            file,
            "layer_norm_eps",
            &bert.layer_norm_eps.to_string(),
            "a number above 0 and below 1",
        ));
    }
    Ok(())
}

/// The parts that `modules.json` lists, as far as they matter here.
struct Modules {
    transformer: PathBuf,
    pooling: Pooling,
}

#[derive(Deserialize)]
struct ModuleEntry {
    path: String,
    r#type: String,
}

/// Without a `modules.json` the model is a bare transformer, which sentence-transformers gives mean pooling.
fn modules(directory: &Path) -> Result<Modules, LoadError> {
    let file = directory.join("modules.json");
    let Some(entries) = read_if_there::<Vec<ModuleEntry>>(&file)? else {
        return Ok(Modules { transformer: directory.to_path_buf(), pooling: Pooling::Mean });
    };
    let mut modules = Modules { transformer: directory.to_path_buf(), pooling: Pooling::Mean };
    for entry in entries {
        match entry.r#type.rsplit('.').next().unwrap_or_default() {
            "Transformer" if entry.path.is_empty() => {}
            "Transformer" => {
                return Err(unsupported(
                    &file,
                    "path of the Transformer",
                    &entry.path,
                    "the directory itself",
                ));
            }
            "Pooling" => modules.pooling = pooling(&directory.join(&entry.path).join("config.json"))?,
            "Normalize" => {} // whoever asks for a vector decides whether it is normalised
            other => return Err(unsupported(&file, "a module", other, "Transformer, Pooling and Normalize")),
        }
    }
    Ok(modules)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

fn pooling(file: &Path) -> Result<Pooling, LoadError> {
    let config: PoolingConfig = read(file)?;
    let modes = [
        ("cls", config.pooling_mode_cls_token),
        ("mean", config.pooling_mode_mean_tokens),
        ("max", config.pooling_mode_max_tokens),
        ("mean_sqrt_len_tokens", config.pooling_mode_mean_sqrt_len_tokens),
        ("weightedmean", config.pooling_mode_weightedmean_tokens),
        ("lasttoken", config.pooling_mode_lasttoken),
    ];
    let chosen = match config.pooling_mode {
        Some(mode) => mode,
        None => modes.iter().filter(|(_, on)| *on).map(|(mode, _)| *mode).collect::<Vec<_>>().join(" and "),
    };
    match chosen.as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        other => Err(unsupported(
            file,
            "pooling mode",
            if other.is_empty() { "none" } else { other },
            "mean or cls, alone",
        )),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

/// sentence-transformers' own limit, else the tokenizer's, else the positions there are.
fn max_tokens(transformer: &Path, directory: &Path, positions: usize) -> Result<usize, LoadError> {
    let sentence: SentenceConfig =
        read_if_there(&transformer.join("sentence_bert_config.json"))?.unwrap_or_default();
    if let Some(limit) = sentence.max_seq_length {
        return Ok(limit.clamp(1, positions));
    }
    let tokenizer: TokenizerConfig =
        read_if_there(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
    // Files say 1e30 for "no limit".
    let limit =
        tokenizer.model_max_length.filter(|limit| *limit >= 1.0).map_or(positions, |limit| limit as usize);
    Ok(limit.clamp(1, positions))
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
    let text = fs::read(file).map_err(|source| LoadError::Io { file: file.to_path_buf(), source })?;
    serde_json::from_slice(&text).map_err(|error| LoadError::Malformed {
        file: file.to_path_buf(),
        expected: "this configuration",
        reason: error.to_string(),
    })
}

fn read_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if file.exists() { read(file).map(Some) } else { Ok(None) }
}

fn unsupported(file: &Path, key: &str, found: &str, supported: &str) -> LoadError {
    LoadError::Unsupported {
        file: file.to_path_buf(),
        key: key.into(),
        found: format!("'{found}'"),
        supported: supported.into(),
    }
}
