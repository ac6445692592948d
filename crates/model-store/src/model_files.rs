//! Which files make an encoder: what is chosen from a hub listing, and what a directory must hold to be one.
//! Everything else in a repository (other forms of the weights, images) is left where it is.

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
/// Says how token vectors become a text's.
pub(crate) const MODULES: &str = "modules.json";

/// Files of the top directory that are taken when they are there.
const WANTED: [&str; 8] = [
    CONFIG,
    TOKENIZER,
    MODULES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The file of a graph where nobody says otherwise, as exporters name it.
const GRAPH: &str = "onnx/model.onnx";

/// In which form a store's models have their weights.
#[derive(Clone, Debug, Default)]
pub enum Format {
    /// `model.safetensors`, or its shards.
    #[default]
    Safetensors,
    /// A graph: `onnx/model.onnx`, or what is said here of a model by its name.
    Onnx(HashMap<String, String>),
}

/// The weights of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    Safetensors,
    /// A graph's file; weights beyond two gigabytes lie beside it.
    Onnx(&'a str),
}

impl Format {
    pub(crate) fn weights(&self, model: &str) -> Weights<'_> {
        match self {
            Self::Safetensors => Weights::Safetensors,
            Self::Onnx(files) => Weights::Onnx(files.get(model).map_or(GRAPH, String::as_str)),
        }
    }
}

impl Weights<'_> {
    /// Whether a directory has the graph; other weights are looked for when they are loaded, which says more.
    pub(crate) fn may_be_in(self, directory: &Path) -> bool {
        match self {
            Self::Safetensors => true,
            Self::Onnx(graph) => directory.join(graph).is_file(),
        }
    }

    fn has(self, path: &str, single: bool) -> bool {
        match self {
            Self::Safetensors if single => path == WEIGHTS,
            Self::Safetensors => path == SHARDS || is_shard(path),
            Self::Onnx(graph) => {
                path.strip_prefix(graph).is_some_and(|rest| ["", "_data", ".data"].contains(&rest))
            }
        }
    }
}

/// Of all paths in a repository, those that an encoder needs. `Err` names what the repository lacks.
pub(crate) fn select<'a>(paths: &BTreeSet<&'a str>, weights: Weights<'_>) -> Result<Vec<&'a str>, String> {
    let single = paths.contains(WEIGHTS);
    let (has_weights, form) = match weights {
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
        (has_weights, &*form),
    ];
    if let Some((_, lacking)) = required.iter().find(|(present, _)| !present) {
        return Err((*lacking).to_owned());
    }
    let is_weight = |path: &str| weights.has(path, single);
    Ok(paths
        .iter()
        .copied()
        .filter(|path| WANTED.contains(path) || is_weight(path) || is_module_file(path))
        .collect())
}

/// What a directory lacks to be an encoder; `None` when it is whole.
pub(crate) fn missing_files(directory: &Path, weights: Weights<'_>) -> Option<String> {
    if let Some(file) = [CONFIG, TOKENIZER].into_iter().find(|file| !directory.join(file).is_file()) {
        return Some(file.to_owned());
    }
    let lacking = match weights {
        Weights::Safetensors => lacking_weights(directory),
        Weights::Onnx(graph) => (!directory.join(graph).is_file()).then(|| graph.to_owned()),
    };
    if lacking.is_some() {
        return lacking;
    }
    let modules: Vec<Module> = read_json(&directory.join(MODULES)).unwrap_or_default();
    // A Normalize module may have no configuration.
    let configured =
        modules.iter().filter(|module| !module.path.is_empty() && !module.class.ends_with("Normalize"));
    configured.map(|module| format!("{}/{CONFIG}", module.path)).find(|file| !directory.join(file).is_file())
}

/// A directory that a caller named by its path.
pub(crate) fn local_directory(directory: PathBuf) -> Result<PathBuf, SourceError> {
    let problem = match fs::metadata(&directory) {
        Err(error) => error.to_string(),
        Ok(metadata) if !metadata.is_dir() => "it is not a directory".to_owned(),
        Ok(_) if !directory.join(CONFIG).is_file() => "it has no config.json".to_owned(),
        Ok(_) => return Ok(directory),
    };
    Err(SourceError::new(
        SourceErrorKind::InvalidName,
        format!("{} is not a model's directory: {problem}", directory.display()),
    ))
}

fn lacking_weights(directory: &Path) -> Option<String> {
    if directory.join(WEIGHTS).is_file() {
        return None;
    }
    let Some(index) = read_json::<ShardIndex>(&directory.join(SHARDS)) else {
        return Some(WEIGHTS.to_owned());
    };
    index.weight_map.into_values().find(|shard| !directory.join(shard).is_file())
}

/// `model-00001-of-00003.safetensors`.
fn is_shard(path: &str) -> bool {
    path.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors")).is_some_and(|numbers| {
        numbers.split_once("-of-").is_some_and(|(number, of)| is_digits(number) && is_digits(of))
    })
}

/// `1_Pooling/config.json`, `2_Dense/model.safetensors`: sentence-transformers numbers its modules.
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
    fn only_what_an_encoder_needs() {
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
        let wanted = [
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ];
        assert_eq!(selected(&all).unwrap(), wanted);
    }

    #[test]
    fn a_graph_with_what_lies_beside_it_and_no_other() {
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
        let select = |format: Format| {
            let paths = all.into_iter().collect();
            select(&paths, format.weights("a/b")).map(|chosen| chosen.into_iter().skip(2).collect::<Vec<_>>())
        };
        let wanted = ["onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"];
        assert_eq!(select(Format::Onnx(HashMap::new())).unwrap(), wanted);
        let int8 = |file: &str| Format::Onnx([("a/b".to_owned(), file.to_owned())].into());
        assert_eq!(select(int8("onnx/model_int8.onnx")).unwrap(), ["onnx/model_int8.onnx", "tokenizer.json"]);
        assert!(select(int8("absent.onnx")).unwrap_err().contains("onnx_file"));
    }

    #[test]
    fn shards_where_there_is_no_single_file() {
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
    fn what_lacks_is_named() {
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
