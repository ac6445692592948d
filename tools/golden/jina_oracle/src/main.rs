//! The golden vectors of JinaBERT v2: a tiny model of the weights that `common.py` describes, through
//! candle-transformers, on the texts and token ids of `tiny.json`.

use std::{collections::HashMap, error::Error, fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::jina_bert::{BertModel, Config};
use serde_json::{Map, Value, json};

/// Six heads, because the slopes of a number that is no power of two are the harder ones.
const HIDDEN: usize = 48;
const INTERMEDIATE: usize = 100;
const LAYERS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../crates/engine/tests/golden");
    let tiny: Value = serde_json::from_slice(&fs::read(golden.join("tiny.json"))?)?;
    let tiny_config: Value = serde_json::from_slice(&fs::read(golden.join("tiny/config.json"))?)?;
    let config = json!({
        "model_type": "bert",
        "auto_map": { "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel" },
        "vocab_size": tiny_config["vocab_size"],
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "intermediate_size": INTERMEDIATE,
        "hidden_act": "gelu",
        "feed_forward_type": "geglu",
        "max_position_embeddings": 48,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
    });
    let shapes = shapes(config["vocab_size"].as_u64().ok_or("no vocab_size")? as usize);
    let mut tensors = HashMap::new();
    for (name, shape) in &shapes {
        let values = weight(name, shape.iter().product());
        tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?);
    }
    let parsed: Config = serde_json::from_value(config.clone())?;
    let model = BertModel::new(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &parsed)?;
    let mut texts = Vec::new();
    for text in tiny["texts"].as_array().ok_or("no texts")? {
        let ids: Vec<u32> = serde_json::from_value(text["ids"].clone())?;
        let hidden = model.forward(&Tensor::new(ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?.squeeze(0)?;
        let rows = hidden.to_vec2::<f32>()?;
        let mean = hidden.mean(0)?.to_vec1::<f32>()?;
        texts.push(json!({
            "text": text["text"],
            "ids": ids,
            "cls": base64_of(&rows[0]),
            "mean": base64_of(&mean),
            "last": base64_of(&rows[rows.len() - 1]),
        }));
    }
    let tensors: Map<String, Value> = shapes.into_iter().map(|(name, shape)| (name, json!(shape))).collect();
    let made = json!({ "made_with": "candle-transformers 0.11.1", "tensors": tensors, "texts": texts });
    fs::create_dir_all(golden.join("jina_bert"))?;
    fs::write(golden.join("jina_bert/config.json"), format!("{config:#}\n"))?;
    fs::write(golden.join("jina_bert.json"), format!("{made:#}\n"))?;
    Ok(())
}

fn shapes(vocabulary: usize) -> Vec<(String, Vec<usize>)> {
    let h = HIDDEN;
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".into(), vec![vocabulary, h]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, h]),
        ("embeddings.LayerNorm.weight".into(), vec![h]),
        ("embeddings.LayerNorm.bias".into(), vec![h]),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("encoder.layer.{layer}.{name}"), shape.to_vec()));
        };
        for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            add(&format!("{name}.weight"), &[h, h]);
            add(&format!("{name}.bias"), &[h]);
        }
        for name in ["attention.output.LayerNorm", "mlp.layernorm"] {
            add(&format!("{name}.weight"), &[h]);
            add(&format!("{name}.bias"), &[h]);
        }
        add("mlp.gated_layers.weight", &[2 * INTERMEDIATE, h]);
        add("mlp.wo.weight", &[h, INTERMEDIATE]);
        add("mlp.wo.bias", &[h]);
    }
    shapes
}

/// `weight` of common.py.
fn weight(name: &str, count: usize) -> Vec<f32> {
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

fn base64_of(vector: &[f32]) -> String {
    BASE64_STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}
