//! The tiny models of tests/golden, with the weights of tools/golden. Each is written to a temporary directory, where a
//! test may damage it.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// tests/golden/<name>.json.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) tensors: BTreeMap<String, Vec<usize>>,
    pub(crate) texts: Vec<GoldenText>,
}

#[derive(Deserialize)]
pub(crate) struct GoldenText {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) cls: String,
    pub(crate) mean: String,
    pub(crate) last: String,
}

/// A temporary model directory, deleted on drop.
pub(crate) struct Tiny {
    directory: TempDir,
    pub(crate) golden: Golden,
}

/// Every architecture's model.
pub(crate) const ARCHITECTURES: &[&str] = &[
    "tiny",
    "camembert",
    "distilbert",
    "gemma3_text",
    "gte",
    "jina_bert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "qwen3",
    "roberta",
    "xlm-roberta",
];

/// A tensor's name, type, shape and bytes.
pub(crate) type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

impl Tiny {
    /// The BERT model, with mean pooling.
    pub(crate) fn new() -> Self {
        Self::for_architecture("tiny")
    }

    /// The model of an architecture, with mean pooling.
    pub(crate) fn for_architecture(name: &str) -> Self {
        let golden: Golden = super::golden(&format!("{name}.json"));
        let tiny = Self { directory: TempDir::new().unwrap(), golden };
        for file in ["config.json", "tokenizer.json"] {
            let own = super::golden_directory().join(name).join(file);
            // Architectures with BERT's kind of tokenizer share its file.
            let shared = super::golden_directory().join("tiny").join(file);
            fs::copy(if own.is_file() { own } else { shared }, tiny.path().join(file)).unwrap();
        }
        tiny.write_json(
            "modules.json",
            &json!([
                { "path": "", "type": "sentence_transformers.models.Transformer" },
                { "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
                { "path": "2_Normalize", "type": "sentence_transformers.models.Normalize" },
            ]),
        );
        tiny.pooling("mean_tokens");
        tiny.write_weights(&tiny.tensors());
        tiny
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Sets the pooling, by the suffix of its key in 1_Pooling/config.json.
    pub(crate) fn pooling(&self, mode: &str) {
        self.write_json("1_Pooling/config.json", &json!({ format!("pooling_mode_{mode}"): true }));
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn write_json(&self, name: &str, content: &Value) {
        self.write(name, content.to_string());
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    /// Sets one key of a JSON file.
    pub(crate) fn set(&self, name: &str, key: &str, value: impl Into<Value>) {
        let mut content: Value = serde_json::from_slice(&self.read(name)).unwrap();
        content[key] = value.into();
        self.write_json(name, &content);
    }

    /// The reference's tensors, as f32.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let tensor = |(name, shape): (&String, &Vec<usize>)| {
            let bytes = weight(name, shape.iter().product()).iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.clone(), Dtype::F32, shape.clone(), bytes)
        };
        self.golden.tensors.iter().map(tensor).collect()
    }

    pub(crate) fn write_weights(&self, tensors: &[Tensor]) {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
            .collect();
        self.write("model.safetensors", safetensors::serialize(views, None).unwrap());
    }

    /// Writes the weights with a change to one tensor.
    pub(crate) fn with_tensor(&self, name: &str, change: impl FnOnce(&mut Tensor)) {
        let mut tensors = self.tensors();
        change(tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap());
        self.write_weights(&tensors);
    }
}

/// `weight` of tools/golden/common.py.
pub(crate) fn weight(name: &str, count: usize) -> Vec<f32> {
    let mut state =
        name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let norm = name.to_lowercase().contains("norm") && name.ends_with(".weight");
    let offset = if norm { 1.0 } else { 0.0 };
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 16_777_216.0 - 0.5) * 0.5 + offset
    };
    std::iter::repeat_with(next).take(count).collect()
}
