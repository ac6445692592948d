//! What sentence-transformers puts behind the transformer, as `modules.json` lists it: pooling, then linear layers
//! and normalisation.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::json::{read, read_if_there, unsupported};
use crate::LoadError;

/// How token vectors become the text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all tokens, special ones included.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    LastToken,
}

/// The parts of a model, as far as they matter here.
#[derive(Clone, Debug)]
pub(crate) struct Modules {
    /// Numbers in a token's vector.
    pub(crate) hidden: usize,
    pub(crate) pooling: Pooling,
    /// What happens to the pooled vector, in order. A normalisation at the very end is left out: whoever asks for a
    /// vector decides whether it is normalised.
    pub(crate) after: Vec<PostPooling>,
}

/// A step behind pooling.
#[derive(Clone, Debug)]
pub(crate) enum PostPooling {
    Dense(DenseConfig),
    Normalize,
}

/// A linear layer behind pooling.
#[derive(Clone, Debug)]
pub(crate) struct DenseConfig {
    /// Where `model.safetensors` lies.
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

/// A static model is its own pooling; sentence-transformers may list it as a module.
pub(super) fn of_static(directory: &Path, hidden: usize) -> Result<Modules, LoadError> {
    read_all(directory, (hidden, &["StaticEmbedding", "Normalize"]))
}

/// Without a `modules.json` the model is a bare transformer, which sentence-transformers gives mean pooling.
pub(crate) fn read_modules(directory: &Path, hidden: usize) -> Result<Modules, LoadError> {
    read_all(directory, (hidden, &["Transformer", "Pooling", "Dense", "Normalize"]))
}

/// The modules, which may be of these kinds.
fn read_all(directory: &Path, (hidden, kinds): (usize, &[&str])) -> Result<Modules, LoadError> {
    let file = directory.join("modules.json");
    let mut modules = Modules { hidden, pooling: Pooling::Mean, after: Vec::new() };
    let mut width = hidden;
    for entry in read_if_there::<Vec<ModuleEntry>>(&file)?.unwrap_or_default() {
        let kind = entry.r#type.rsplit('.').next().unwrap_or_default();
        if !kinds.contains(&kind) {
            return Err(unsupported(&file, "a module", kind, &kinds.join(", ")));
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
                modules.after.push(PostPooling::Dense(dense));
            }
            _ => modules.after.push(PostPooling::Normalize),
        }
    }
    while matches!(modules.after.last(), Some(PostPooling::Normalize)) {
        modules.after.pop();
    }
    Ok(modules)
}

impl Modules {
    /// The files that say what happens behind pooling.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let directories = self.after.iter().filter_map(|after| match after {
            PostPooling::Dense(dense) => Some(&dense.directory),
            PostPooling::Normalize => None,
        });
        directories
            .flat_map(|directory| ["config.json", "model.safetensors"].map(|name| directory.join(name)))
    }

    /// Numbers in a vector.
    pub(crate) fn dimensions(&self) -> usize {
        let last = self.after.iter().rev().find_map(|after| match after {
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
            "true: a prompt's tokens are pooled with the text's",
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
    let chosen = match config.pooling_mode {
        Some(mode) => mode,
        None => modes.iter().filter(|(_, on)| *on).map(|(mode, _)| *mode).collect::<Vec<_>>().join(" and "),
    };
    match chosen.as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "lasttoken" => Ok(Pooling::LastToken),
        other => Err(unsupported(
            file,
            "pooling mode",
            if other.is_empty() { "none" } else { other },
            "mean, cls or lasttoken, alone",
        )),
    }
}

#[derive(Deserialize)]
struct DenseFile {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    activation_function: String,
}

fn yes() -> bool {
    true
}

fn dense(directory: PathBuf, width: usize) -> Result<DenseConfig, LoadError> {
    let file = directory.join("config.json");
    let config: DenseFile = read(&file)?;
    if config.in_features != width {
        let supported = format!("{width}, what stands before it gives");
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
