//! The files of an encoder: which files of a repository are downloaded, and which files a directory must have to be
//! complete. Other files of a repository, such as weights in other formats and images, are not downloaded.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use embeddery_core::{SourceError, SourceErrorKind};
use serde::Deserialize;

pub(crate) const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const SHARDS: &str = "model.safetensors.index.json";
/// Lists the modules of a sentence-transformers model, pooling among them.
pub(crate) const MODULES: &str = "modules.json";

/// Files of the top directory that are downloaded if they exist.
const TOP_LEVEL_FILES: [&str; 8] = [
    CONFIG,
    TOKENIZER,
    MODULES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The default path of a graph, as exporters name it.
const DEFAULT_GRAPH: &str = "onnx/model.onnx";

/// The file format of the weights of a store's models.
#[derive(Clone, Debug, Default)]
pub enum WeightsFormat {
    /// `model.safetensors`, or its shards.
    #[default]
    Safetensors,
    /// An ONNX graph: `onnx/model.onnx`, or the path given here for a model name.
    Onnx(HashMap<String, String>),
}

/// The weights files of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    Safetensors,
    /// The path of a graph. Weights beyond two gigabytes are in a second file beside it.
    Onnx(&'a str),
}

impl WeightsFormat {
    pub(crate) fn weights(&self, model: &str) -> Weights<'_> {
        match self {
            Self::Safetensors => Weights::Safetensors,
            Self::Onnx(files) => Weights::Onnx(files.get(model).map_or(DEFAULT_GRAPH, String::as_str)),
        }
    }
}

impl Weights<'_> {
    /// Whether a directory may have the weights. Only graphs are checked: a missing safetensors file gets a better error
    /// when the engine loads the model.
    pub(crate) fn may_be_in(self, directory: &Path) -> bool {
        match self {
            Self::Safetensors => true,
            Self::Onnx(graph) => directory.join(graph).is_file(),
        }
    }

    fn includes(self, path: &str, single: bool) -> bool {
        match self {
            Self::Safetensors if single => path == WEIGHTS,
            Self::Safetensors => path == SHARDS || is_shard(path),
            Self::Onnx(graph) => {
                path.strip_prefix(graph).is_some_and(|rest| ["", "_data", ".data"].contains(&rest))
            }
        }
    }
}

/// The paths of a repository that an encoder needs. The error names what the repository lacks.
pub(crate) fn select<'a>(paths: &BTreeSet<&'a str>, weights: Weights<'_>) -> Result<Vec<&'a str>, String> {
    let single = paths.contains(WEIGHTS);
    let (has_weights, description) = match weights {
        Weights::Safetensors => {
            (single || paths.contains(SHARDS), "model.safetensors (safetensors weights)".to_owned())
        }
        Weights::Onnx(graph) => (
            paths.contains(graph),
            format!("{graph} (a graph for ONNX Runtime; `onnx_file` chooses another)"),
        ),
    };
    let required = [
        (paths.contains(CONFIG), CONFIG),
        (paths.contains(TOKENIZER), "tokenizer.json (a \"fast\" tokenizer)"),
        (has_weights, &*description),
    ];
    if let Some((_, missing)) = required.iter().find(|(present, _)| !present) {
        return Err((*missing).to_owned());
    }
    let is_weight = |path: &str| weights.includes(path, single);
    Ok(paths
        .iter()
        .copied()
        .filter(|path| TOP_LEVEL_FILES.contains(path) || is_weight(path) || is_module_file(path))
        .collect())
}

/// The first file that a directory lacks; `None` if it is complete.
pub(crate) fn missing_files(directory: &Path, weights: Weights<'_>) -> Option<String> {
    if let Some(file) = [CONFIG, TOKENIZER].into_iter().find(|file| !directory.join(file).is_file()) {
        return Some(file.to_owned());
    }
    let missing = match weights {
        Weights::Safetensors => missing_weights(directory),
        Weights::Onnx(graph) => (!directory.join(graph).is_file()).then(|| graph.to_owned()),
    };
    if missing.is_some() {
        return missing;
    }
    let modules: Vec<Module> = read_json(&directory.join(MODULES)).unwrap_or_default();
    // A Normalize module need not have a configuration file.
    let configured =
        modules.iter().filter(|module| !module.path.is_empty() && !module.class.ends_with("Normalize"));
    configured.map(|module| format!("{}/{CONFIG}", module.path)).find(|file| !directory.join(file).is_file())
}

/// Checks a model directory that is given by its path.
pub(crate) fn local_directory(directory: PathBuf) -> Result<PathBuf, SourceError> {
    let problem = match fs::metadata(&directory) {
        Err(error) => error.to_string(),
        Ok(metadata) if !metadata.is_dir() => "it is not a directory".to_owned(),
        Ok(_) if !directory.join(CONFIG).is_file() => "it has no config.json".to_owned(),
        Ok(_) => return Ok(directory),
    };
    Err(SourceError::new(
        SourceErrorKind::InvalidName,
        format!("{} is not a model directory: {problem}", directory.display()),
    ))
}

fn missing_weights(directory: &Path) -> Option<String> {
    if directory.join(WEIGHTS).is_file() {
        return None;
    }
    let Some(index) = read_json::<ShardIndex>(&directory.join(SHARDS)) else {
        return Some(WEIGHTS.to_owned());
    };
    index.weight_map.into_values().find(|shard| !directory.join(shard).is_file())
}

/// Whether a path is a shard, such as `model-00001-of-00003.safetensors`.
fn is_shard(path: &str) -> bool {
    path.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors")).is_some_and(|numbers| {
        numbers.split_once("-of-").is_some_and(|(number, of)| is_digits(number) && is_digits(of))
    })
}

/// Whether a path is a file of a sentence-transformers module, such as `1_Pooling/config.json` or
/// `2_Dense/model.safetensors`.
fn is_module_file(path: &str) -> bool {
    let Some((directory, file)) = path.split_once('/') else { return false };
    let is_module = directory.split_once('_').is_some_and(|(number, class)| {
        is_digits(number) && class.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    is_module && [CONFIG, WEIGHTS].contains(&file)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_json<T: for<'de> Deserialize<'de>>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(paths: &[&'static str]) -> Result<Vec<&'static str>, String> {
        select(&paths.iter().copied().collect(), Weights::Safetensors)
    }

    #[test]
    fn only_files_that_an_encoder_needs_are_selected() {
        let all = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "README.md",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        let expected = [
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ];
        assert_eq!(selected(&all).unwrap(), expected);
    }

    #[test]
    fn a_graph_is_selected_with_its_data_file() {
        let all = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "1_Pooling/config.json",
            "onnx/config.json",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model_int8.onnx",
        ];
        let select = |format: WeightsFormat| {
            let paths = all.into_iter().collect();
            select(&paths, format.weights("a/b")).map(|chosen| chosen.into_iter().skip(2).collect::<Vec<_>>())
        };
        let expected = ["onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"];
        assert_eq!(select(WeightsFormat::Onnx(HashMap::new())).unwrap(), expected);
        let int8 = |file: &str| WeightsFormat::Onnx([("a/b".to_owned(), file.to_owned())].into());
        assert_eq!(select(int8("onnx/model_int8.onnx")).unwrap(), ["onnx/model_int8.onnx", "tokenizer.json"]);
        assert!(select(int8("absent.onnx")).unwrap_err().contains("onnx_file"));
    }

    #[test]
    fn shards_are_selected_without_a_single_file() {
        let shards = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(selected(&shards).unwrap(), shards);
    }

    #[test]
    fn missing_files_are_named() {
        assert!(selected(&["tokenizer.json", "model.safetensors"]).unwrap_err().contains("config.json"));
        assert!(
            selected(&["config.json", "vocab.txt", "model.safetensors"])
                .unwrap_err()
                .contains("tokenizer.json")
        );
        assert!(
            selected(&["config.json", "tokenizer.json", "pytorch_model.bin"])
                .unwrap_err()
                .contains("safetensors")
        );
    }
}
