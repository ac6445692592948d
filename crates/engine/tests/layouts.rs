//! Other layouts of the same model: tensor names, stacked tensors and configuration keys of repositories with custom
//! code, older keys, and prefixes. Each must give the same vectors as transformers' layout.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use embeddery_engine::{KernelChoice, LoadError, ModelFiles, TruncationSide};
use serde_json::{Value, json};
use support::{
    distance, load, threads,
    tiny::{Tensor, Tiny},
    vector,
};

/// Compares every text's vector with the reference.
fn assert_matches_reference(tiny: &Tiny) {
    let model = load(tiny.path(), KernelChoice::Auto).unwrap();
    for expected in &tiny.golden.texts {
        let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
        let error = distance(&model.encode(&threads(1), &[&tokens]).unwrap(), &vector(&expected.mean));
        assert!(error <= 2e-5, "{:?}: {error}", expected.text);
    }
}

/// Opens the model, which must be unsupported, with an error that contains all of `words`.
fn assert_unsupported(tiny: &Tiny, words: &[&str]) {
    let error =
        ModelFiles::open(tiny.path()).err().unwrap_or_else(|| panic!("expected an error with {words:?}"));
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "'{error}' does not contain '{word}'");
    }
}

/// Replaces parts of tensor names.
fn rename(tensors: &mut [Tensor], names: &[(&str, &str)]) {
    for tensor in tensors {
        for (from, to) in names {
            tensor.0 = tensor.0.replace(from, to);
        }
    }
}

/// Stacks tensors of every layer into one tensor.
fn stack(tensors: &mut Vec<Tensor>, parts: &[&str], whole: &str) {
    for layer in 0..2 {
        for end in ["weight", "bias"] {
            let mut stacked: Option<Tensor> = None;
            for part in parts {
                let name = format!("{layer}.{part}.{end}");
                let Some(index) = tensors.iter().position(|tensor| tensor.0.ends_with(&name)) else {
                    continue;
                };
                let part = tensors.remove(index);
                match &mut stacked {
                    None => {
                        let whole = part.0.replace(&name, &format!("{layer}.{whole}.{end}"));
                        stacked = Some((whole, part.1, part.2, part.3));
                    }
                    Some(stacked) => {
                        stacked.2[0] += part.2[0];
                        stacked.3.extend(part.3);
                    }
                }
            }
            tensors.extend(stacked);
        }
    }
}

const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

/// Removes keys of newer transformers from the configuration, and adds others.
fn configure(tiny: &Tiny, without: &[&str], with: &Value) {
    let mut config: Value = serde_json::from_slice(&tiny.read("config.json")).unwrap();
    let keys = config.as_object_mut().unwrap();
    without.iter().for_each(|key| assert!(keys.remove(*key).is_some(), "{key}"));
    keys.extend(with.as_object().unwrap().clone());
    tiny.write_json("config.json", &config);
}

/// The layout of nomic-ai/nomic-embed-text-v1.5.
fn nomic() -> Tiny {
    let tiny = Tiny::for_architecture("nomic_bert");
    let mut tensors = tiny.tensors();
    stack(&mut tensors, &QKV, "attn.Wqkv");
    rename(
        &mut tensors,
        &[
            ("embeddings.LayerNorm", "emb_ln"),
            ("layers.", "encoder.layers."),
            ("self_attn.o_proj", "attn.out_proj"),
            ("mlp.up_proj", "mlp.fc11"),
            ("mlp.gate_proj", "mlp.fc12"),
            ("mlp.down_proj", "mlp.fc2"),
            ("post_attention_layernorm", "norm1"),
            ("post_mlp_layernorm", "norm2"),
        ],
    );
    tiny.write_weights(&tensors);
    tiny.write_json(
        "config.json",
        &json!({
            "model_type": "nomic_bert", "architectures": ["NomicBertModel"],
            "auto_map": { "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel" },
            "activation_function": "swiglu", "causal": false, "layer_norm_epsilon": 1e-12,
            "max_trained_positions": 2048, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "n_embd": 40, "n_head": 5,
            "n_inner": 52, "n_layer": 2, "n_positions": 96, "parallel_block": false, "prenorm": false,
            "qkv_proj_bias": false, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": false, "rotary_emb_scale_base": null, "rotary_scaling_factor": null,
            "type_vocab_size": 2, "use_rms_norm": false, "vocab_size": 65,
        }),
    );
    tiny
}

#[test]
fn nomic_bert_in_the_layout_of_its_repositories() {
    assert_matches_reference(&nomic());
    for (key, value) in [
        ("num_experts", json!(8)),
        ("rotary_scaling_factor", json!(2)),
        ("rotary_emb_fraction", json!(0.5)),
        ("rotary_emb_interleaved", json!(true)),
        ("prenorm", json!(true)),
        ("activation_function", json!("gelu")),
        ("qkv_proj_bias", json!(true)),
    ] {
        let tiny = nomic();
        tiny.set("config.json", key, value);
        assert_unsupported(&tiny, &["config.json", key]);
    }
}

/// The layout of Alibaba-NLP/gte-base-en-v1.5, gte-multilingual-base and stella_en_400M_v5.
#[test]
fn gte_in_the_layout_of_its_repositories() {
    for prefix in ["", "new."] {
        let tiny = Tiny::for_architecture("gte");
        let mut tensors = tiny.tensors();
        stack(&mut tensors, &QKV, "attention.qkv_proj");
        stack(&mut tensors, &["mlp.up_proj", "mlp.gate_proj"], "mlp.up_gate_proj");
        rename(
            &mut tensors,
            &[
                ("layers.", "encoder.layer."),
                ("self_attn.o_proj", "attention.o_proj"),
                ("post_attention_layernorm", "attn_ln"),
                ("post_mlp_layernorm", "mlp_ln"),
            ],
        );
        tensors.iter_mut().for_each(|tensor| tensor.0.insert_str(0, prefix));
        tiny.write_weights(&tensors);
        let custom = json!({
            "model_type": "new", "architectures": ["NewModel"],
            "auto_map": { "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel" },
            "layer_norm_type": "layer_norm", "logn_attention_scale": false, "pack_qkv": true,
            "position_embedding_type": "rope", "rope_theta": 160_000, "rope_scaling": null,
        });
        configure(&tiny, &["rope_parameters"], &custom);
        assert_matches_reference(&tiny);
        tiny.set("config.json", "rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }));
        assert_unsupported(&tiny, &["config.json", "type", "dynamic"]);
    }
}

#[test]
fn older_keys_of_rotary_positions_are_read() {
    let tiny = Tiny::for_architecture("modernbert");
    let custom = json!({ "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0 });
    configure(&tiny, &["rope_parameters", "layer_types"], &custom);
    assert_matches_reference(&tiny);
    tiny.set("config.json", "global_attn_every_n_layers", 2);
    let model = load(tiny.path(), KernelChoice::Auto).unwrap();
    let tokens = model.tokenize(&"the ".repeat(40), TruncationSide::End).unwrap();
    let expected = &tiny.golden.texts[5];
    assert!(distance(&model.encode(&threads(1), &[&tokens]).unwrap(), &vector(&expected.mean)) > 1e-3);
    tiny.set("config.json", "global_rope_theta", 0.5);
    assert_unsupported(&tiny, &["config.json", "global_rope_theta", "0.5"]);

    let tiny = Tiny::for_architecture("gemma3_text");
    let custom =
        json!({ "_sliding_window_pattern": 2, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0 });
    configure(&tiny, &["rope_parameters", "layer_types"], &custom);
    assert_matches_reference(&tiny);
    tiny.set("config.json", "use_bidirectional_attention", false);
    assert_unsupported(&tiny, &["config.json", "use_bidirectional_attention"]);

    let tiny = Tiny::for_architecture("qwen3");
    let custom = json!({
        "rope_theta": 10_000, "rope_scaling": null, "use_sliding_window": false, "sliding_window": null,
        "max_window_layers": 2,
    });
    configure(&tiny, &["rope_parameters", "layer_types"], &custom);
    assert_matches_reference(&tiny);
    tiny.set("config.json", "rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 }));
    assert_unsupported(&tiny, &["config.json", "rope_type", "yarn"]);
}

#[test]
fn prefixes_of_models_saved_with_a_head_are_recognized() {
    for (name, prefix) in [
        ("tiny", "bert."),
        ("tiny", "0.auto_model."),
        ("roberta", "roberta."),
        ("xlm-roberta", "roberta."),
        ("camembert", "roberta."),
        ("distilbert", "distilbert."),
        ("mpnet", "mpnet."),
        ("modernbert", "model."),
        ("qwen3", "model."),
        ("gemma3_text", "model."),
    ] {
        let tiny = Tiny::for_architecture(name);
        let mut tensors = tiny.tensors();
        tensors.iter_mut().for_each(|tensor| tensor.0.insert_str(0, prefix));
        tiny.write_weights(&tensors);
        assert_matches_reference(&tiny);
    }
}

/// Other rotary parameters and other windows give vectors that are not comparable.
#[test]
fn the_fingerprint_covers_settings_without_a_tensor() {
    let fingerprint = |name: &str, key: &str, value: Value| {
        let tiny = Tiny::for_architecture(name);
        tiny.set("config.json", key, value);
        ModelFiles::open(tiny.path()).unwrap().fingerprint().unwrap()
    };
    assert_ne!(
        fingerprint("modernbert", "local_attention", json!(12)),
        fingerprint("modernbert", "local_attention", json!(14))
    );
    assert_eq!(
        fingerprint("modernbert", "local_attention", json!(12)),
        fingerprint("modernbert", "_name_or_path", json!("x"))
    );
    let gte = |theta: f64| {
        fingerprint("gte", "rope_parameters", json!({ "rope_type": "default", "rope_theta": theta }))
    };
    assert_ne!(gte(160_000.0), gte(20_000.0));
    let scalar = |scalar: u32| fingerprint("gemma3_text", "query_pre_attn_scalar", json!(scalar));
    assert_ne!(scalar(16), scalar(8));
}

/// jinaai/jina-embeddings-v3 has the `model_type` of XLM-RoBERTa but a different architecture.
#[test]
fn custom_code_is_rejected_by_name() {
    let tiny = Tiny::for_architecture("xlm-roberta");
    let class = "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA";
    tiny.set("config.json", "auto_map", json!({ "AutoModel": class }));
    assert_unsupported(&tiny, &["model_type", "xlm-roberta", class, "nomic_bert, qwen3"]);
    tiny.set("config.json", "auto_map", json!({}));
    assert_matches_reference(&tiny);
    tiny.set("config.json", "position_embedding_type", "rotary");
    assert_unsupported(&tiny, &["position_embedding_type", "rotary"]);
    tiny.set("config.json", "model_type", "t5");
    assert_unsupported(&tiny, &["model_type", "t5", "bert, camembert"]);
}

#[test]
fn contradictory_sizes_are_named() {
    for (name, key, value) in [
        ("qwen3", "num_key_value_heads", json!(4)),
        ("qwen3", "hidden_act", json!("gelu")),
        ("gemma3_text", "layer_types", json!(["full_attention"])),
        ("gemma3_text", "attn_logit_softcapping", json!(50.0)),
        ("modernbert", "layer_types", json!(["full_attention", "other", "full_attention", "full_attention"])),
        ("modernbert", "hidden_activation", json!("relu")),
        ("distilbert", "n_heads", json!(7)),
        ("gte", "hidden_act", json!("relu")),
    ] {
        let tiny = Tiny::for_architecture(name);
        tiny.set("config.json", key, value);
        assert_unsupported(&tiny, &["config.json", key]);
    }
    let tiny = Tiny::for_architecture("qwen3");
    tiny.set("config.json", "head_dim", 7);
    assert_unsupported(&tiny, &["config.json", "even"]);
}
