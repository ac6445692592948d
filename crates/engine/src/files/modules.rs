//! `modules.json`: the parts that sentence-transformers applies after the transformer, which are pooling, then linear
//! layers and normalization.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::json::{read, read_if_exists, unsupported};
use crate::LoadError;

/// How token vectors become the text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all token vectors, special tokens included.
    Mean,
    /// The first token's vector.
    Cls,
    /// The last token's vector.
    LastToken,
}

/// The supported parts of a model.
#[derive(Clone, Debug)]
pub(crate) struct Modules {
    /// Width of a token vector.
    pub(crate) hidden: usize,
    pub(crate) pooling: Pooling,
    /// Steps after pooling, in order. A final normalization is dropped, because the caller decides whether a vector is
    /// normalized.
    pub(crate) post_pooling: Vec<PostPooling>,
}

/// A step after pooling.
#[derive(Clone, Debug)]
pub(crate) enum PostPooling {
    Dense(DenseConfig),
    Normalize,
}

/// A linear layer after pooling.
#[derive(Clone, Debug)]
pub(crate) struct DenseConfig {
    /// Directory of the layer's `model.safetensors`.
    pub(crate) directory: PathBuf,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bias: bool,
    pub(crate) tanh: bool,
}

#[derive(Deserialize)]
struct ModuleEntry {
    path: String,
    r#type: String,
}

/// Reads the modules of a static model, which has no pooling module because it pools itself.
pub(crate) fn read_static_modules(directory: &Path, hidden: usize) -> Result<Modules, LoadError> {
    read_all(directory, hidden, &["StaticEmbedding", "Normalize"])
}

/// Reads the modules of an encoder. A directory without `modules.json` is a plain transformer, for which
/// sentence-transformers uses mean pooling.
pub(crate) fn read_modules(directory: &Path, hidden: usize) -> Result<Modules, LoadError> {
    read_all(directory, hidden, &["Transformer", "Pooling", "Dense", "Normalize"])
}

/// Reads the modules and rejects every type that is not in `supported`.
fn read_all(directory: &Path, hidden: usize, supported: &[&str]) -> Result<Modules, LoadError> {
    let file = directory.join("modules.json");
    let mut modules = Modules { hidden, pooling: Pooling::Mean, post_pooling: Vec::new() };
    let mut width = hidden;
    for entry in read_if_exists::<Vec<ModuleEntry>>(&file)?.unwrap_or_default() {
        let kind = entry.r#type.rsplit('.').next().unwrap_or_default();
        if !supported.contains(&kind) {
            return Err(unsupported(&file, "a module", kind, &supported.join(", ")));
        }
        match kind {
            "Transformer" | "StaticEmbedding" if ["", "."].contains(&entry.path.as_str()) => {}
            "Transformer" | "StaticEmbedding" => {
                let key = format!("path of the {kind}");
                return Err(unsupported(&file, &key, &entry.path, "the directory itself"));
            }
            "Pooling" => modules.pooling = pooling(&directory.join(&entry.path).join("config.json"))?,
            "Dense" => {
                let dense = dense(directory.join(&entry.path), width)?;
                width = dense.outputs;
                modules.post_pooling.push(PostPooling::Dense(dense));
            }
            _ => modules.post_pooling.push(PostPooling::Normalize),
        }
    }
    while matches!(modules.post_pooling.last(), Some(PostPooling::Normalize)) {
        modules.post_pooling.pop();
    }
    Ok(modules)
}

impl Modules {
    /// The files that determine the steps after pooling.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let directories = self.post_pooling.iter().filter_map(|step| match step {
            PostPooling::Dense(dense) => Some(&dense.directory),
            PostPooling::Normalize => None,
        });
        directories
            .flat_map(|directory| ["config.json", "model.safetensors"].map(|name| directory.join(name)))
    }

    /// Length of a text's vector.
    pub(crate) fn dimensions(&self) -> usize {
        let last = self.post_pooling.iter().rev().find_map(|step| match step {
            PostPooling::Dense(dense) => Some(dense.outputs),
            PostPooling::Normalize => None,
        });
        last.unwrap_or(self.hidden)
    }
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
    include_prompt: Option<bool>,
}

fn pooling(file: &Path) -> Result<Pooling, LoadError> {
    let config: PoolingConfig = read(file)?;
    if config.include_prompt == Some(false) {
        return Err(unsupported(
            file,
            "include_prompt",
            "false",
            "true: the prompt's tokens are pooled with the text's tokens",
        ));
    }
    let modes = [
        ("cls", config.pooling_mode_cls_token),
        ("mean", config.pooling_mode_mean_tokens),
        ("max", config.pooling_mode_max_tokens),
        ("mean_sqrt_len_tokens", config.pooling_mode_mean_sqrt_len_tokens),
        ("weightedmean", config.pooling_mode_weightedmean_tokens),
        ("lasttoken", config.pooling_mode_lasttoken),
    ];
    let mode = match config.pooling_mode {
        Some(mode) => mode,
        None => modes.iter().filter(|(_, on)| *on).map(|(mode, _)| *mode).collect::<Vec<_>>().join(" and "),
    };
    match mode.as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "lasttoken" => Ok(Pooling::LastToken),
        other => Err(unsupported(
            file,
            "pooling mode",
            if other.is_empty() { "none" } else { other },
            "exactly one of mean, cls and lasttoken",
        )),
    }
}

#[derive(Deserialize)]
struct DenseFile {
    in_features: usize,
    out_features: usize,
    #[serde(default = "default_bias")]
    bias: bool,
    #[serde(default)]
    activation_function: String,
}

fn default_bias() -> bool {
    true
}

fn dense(directory: PathBuf, width: usize) -> Result<DenseConfig, LoadError> {
    let file = directory.join("config.json");
    let config: DenseFile = read(&file)?;
    if config.in_features != width {
        let supported = format!("{width}, the width of the previous step's output");
        return Err(unsupported(&file, "in_features", &config.in_features.to_string(), &supported));
    }
    if config.out_features == 0 || config.out_features > 1 << 20 {
        return Err(unsupported(&file, "out_features", &config.out_features.to_string(), "1 to 1048576"));
    }
    let tanh = match config.activation_function.rsplit('.').next().unwrap_or_default() {
        "Tanh" => true,
        "Identity" => false,
        other => return Err(unsupported(&file, "activation_function", other, "Tanh and Identity")),
    };
    Ok(DenseConfig {
        directory,
        inputs: config.in_features,
        outputs: config.out_features,
        bias: config.bias,
        tanh,
    })
}
