//! Small BERT models with random weights. They are large enough to measure memory, and small enough that twenty of them
//! load in a second.

use std::{fs, path::Path};

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};

/// The parameters of a small BERT model.
#[derive(Clone, Copy, Debug)]
pub struct Tiny {
    /// Dimensions of a vector.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// The seed of the weights. Models of different seeds compute different vectors.
    pub seed: u32,
}

impl Default for Tiny {
    fn default() -> Self {
        Self { hidden: 32, layers: 1, seed: 1 }
    }
}

/// Words in the vocabulary, `w0` to `w999`. Each is one token.
const WORDS: usize = 1000;
const POSITIONS: usize = 64;

impl Tiny {
    /// Writes the model's files to the directory `<base>/<name>/`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(self, base: &Path, name: &str) -> std::io::Result<()> {
        let directory = base.join(name);
        fs::create_dir_all(directory.join("1_Pooling"))?;
        let config = json!({
            "model_type": "bert", "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden / 16, "intermediate_size": 4 * self.hidden,
            "vocab_size": WORDS + 3, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        });
        let modules = json!([
            { "path": "", "type": "sentence_transformers.models.Transformer" },
            { "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
            { "path": "2_Normalize", "type": "sentence_transformers.models.Normalize" },
        ]);
        let files = [
            ("config.json", config),
            ("modules.json", modules),
            ("1_Pooling/config.json", json!({ "pooling_mode_mean_tokens": true })),
            ("tokenizer.json", tokenizer()),
        ];
        for (file, content) in files {
            fs::write(directory.join(file), content.to_string())?;
        }
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .shapes()
            .into_iter()
            .map(|(name, shape)| {
                let bytes = self.tensor_bytes(&name, shape.iter().product());
                (name, shape, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(std::io::Error::other);
            view.map(|view| (name, view))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        serialize_to_file(views, None, &directory.join("model.safetensors")).map_err(std::io::Error::other)
    }

    fn shapes(self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden;
        let mut shapes = vec![
            ("embeddings.word_embeddings.weight".to_owned(), vec![WORDS + 3, h]),
            ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, h]),
            ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, h]),
            ("embeddings.LayerNorm.weight".to_owned(), vec![h]),
            ("embeddings.LayerNorm.bias".to_owned(), vec![h]),
        ];
        let mut linear = |name: String, outputs: usize, inputs: usize| {
            shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        };
        for layer in 0..self.layers {
            let named = |name: &str| format!("encoder.layer.{layer}.{name}");
            for name in ["query", "key", "value"] {
                linear(named(&format!("attention.self.{name}")), h, h);
            }
            linear(named("attention.output.dense"), h, h);
            linear(named("intermediate.dense"), 4 * h, h);
            linear(named("output.dense"), h, 4 * h);
        }
        for layer in 0..self.layers {
            for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
                for part in ["weight", "bias"] {
                    shapes.push((format!("encoder.layer.{layer}.{norm}.{part}"), vec![h]));
                }
            }
        }
        shapes
    }

    /// The pseudo-random values of a tensor as little-endian f32: around one for the scales of LayerNorm, else around zero.
    fn tensor_bytes(self, name: &str, count: usize) -> Vec<u8> {
        let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let mut state = name.bytes().fold(0x811C_9DC5 ^ self.seed.wrapping_mul(0x9E37_79B9), mix);
        let offset = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 16_777_216.0 - 0.5) * 0.2 + offset
        };
        (0..count).flat_map(|_| next().to_le_bytes()).collect()
    }
}

/// A tokenizer with one token for each word, and BERT's special tokens.
fn tokenizer() -> Value {
    let mut vocabulary = serde_json::Map::new();
    let specials = ["[UNK]", "[CLS]", "[SEP]"];
    for (id, special) in specials.iter().enumerate() {
        vocabulary.insert((*special).to_owned(), id.into());
    }
    for word in 0..WORDS {
        vocabulary.insert(format!("w{word}"), (word + specials.len()).into());
    }
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}
