//! Model directories that are damaged, contradictory or unsupported. Each is rejected with an error that names the file
//! and the key or tensor, and no content makes the loader panic.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use std::fs;

use embeddery_engine::{
    EncodeError, KernelChoice, LoadError, LoadOptions, Model, ModelFiles, TruncationSide,
};
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};
use support::{PRECISIONS, distance, load, load_in, minilm, threads, tiny::Tiny, vector};

fn try_load(tiny: &Tiny) -> Result<Model, LoadError> {
    ModelFiles::open(tiny.path())?.load(&LoadOptions::default())
}

/// Loads the model and returns the error. Its message must contain all of `words`.
fn load_error(tiny: &Tiny, words: &[&str]) -> LoadError {
    let error = try_load(tiny).err().unwrap_or_else(|| panic!("loaded; expected an error with {words:?}"));
    for word in words {
        assert!(error.to_string().contains(word), "'{error}' does not contain '{word}'");
    }
    error
}

const QUERY: &str = "encoder.layer.1.attention.self.query.weight";

/// Compares every text's vector with the reference.
fn assert_matches_reference(tiny: &Tiny, tolerance: f32) {
    let model = load(tiny.path(), KernelChoice::Auto).unwrap();
    for expected in &tiny.golden.texts {
        let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
        let error = distance(&model.encode(&threads(1), &[&tokens]).unwrap(), &vector(&expected.mean));
        assert!(error <= tolerance, "{:?}: {error}", expected.text);
    }
}

#[test]
fn missing_files_are_named() {
    for name in ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"] {
        let tiny = Tiny::new();
        fs::remove_file(tiny.path().join(name)).unwrap();
        load_error(&tiny, &[name]);
    }
    let error = ModelFiles::open("/no/such/directory".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
}

#[test]
fn a_transformer_without_modules_gets_mean_pooling() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.path().join("modules.json")).unwrap();
    fs::remove_dir_all(tiny.path().join("1_Pooling")).unwrap();
    assert_matches_reference(&tiny, 1e-5);
}

#[test]
fn malformed_json_files_are_named() {
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ] {
        for content in ["", "{", "[1, 2", "\u{0}", "null", "\"text\"", "{\"model_type\": 3}"] {
            let tiny = Tiny::new();
            tiny.write(name, content);
            match try_load(&tiny) {
                // A file with only optional keys accepts `null` and unknown keys.
                Ok(_) => assert_eq!(name, "sentence_bert_config.json", "{content}"),
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
            }
        }
    }
}

#[test]
fn unsupported_configuration_values_are_named() {
    for (key, value) in [
        ("model_type", json!("llama")),
        ("model_type", json!("")),
        ("hidden_act", json!("gelu_new")),
        ("hidden_act", json!("relu")),
        ("position_embedding_type", json!("relative_key")),
        ("num_attention_heads", json!(7)),
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("vocab_size", json!(1_u64 << 60)),
        ("layer_norm_eps", json!(-1.0)),
        ("is_decoder", json!(true)),
    ] {
        let tiny = Tiny::new();
        tiny.set("config.json", key, value.clone());
        let error = load_error(&tiny, &["config.json", key]);
        assert!(matches!(error, LoadError::Unsupported { .. }), "{key} {value}: {error}");
    }
    let tiny = Tiny::new();
    tiny.set("config.json", "model_type", "llama");
    load_error(&tiny, &["llama", "bert"]);
    for (key, value) in [
        ("hidden_size", json!(-40)),
        ("hidden_size", json!("40")),
        ("vocab_size", json!(1.5)),
        ("vocab_size", Value::Null),
    ] {
        let tiny = Tiny::new();
        tiny.set("config.json", key, value);
        assert!(matches!(load_error(&tiny, &["config.json"]), LoadError::Malformed { .. }));
    }
}

#[test]
fn sizes_that_contradict_the_weights_are_named_with_the_tensor() {
    for (key, value, tensor) in [
        ("vocab_size", 66, "embeddings.word_embeddings.weight"),
        ("max_position_embeddings", 49, "embeddings.position_embeddings.weight"),
        ("type_vocab_size", 1, "embeddings.token_type_embeddings.weight"),
        ("intermediate_size", 101, "intermediate.dense.weight"),
        ("hidden_size", 45, "embeddings"),
    ] {
        let tiny = Tiny::new();
        tiny.set("config.json", key, value);
        let error = load_error(&tiny, &["model.safetensors", tensor]);
        assert!(matches!(error, LoadError::WrongShape { .. }), "{key}: {error}");
    }
    let tiny = Tiny::new();
    tiny.set("config.json", "num_hidden_layers", 3);
    assert!(matches!(
        load_error(&tiny, &["model.safetensors", "encoder.layer.2."]),
        LoadError::MissingTensor { .. }
    ));
}

#[test]
fn unsupported_modules_are_named() {
    for module in ["LSTM", "CNN", "WeightedLayerPooling", "StaticEmbedding"] {
        let tiny = Tiny::new();
        let entry = |path: &str, kind: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
        tiny.write_json(
            "modules.json",
            &json!([entry("", "Transformer"), entry("1_Pooling", "Pooling"), entry("2_X", module)]),
        );
        assert!(matches!(load_error(&tiny, &["modules.json", module]), LoadError::Unsupported { .. }));
    }
}

#[test]
fn unsupported_poolings_are_named() {
    for (mode, word) in [
        ("max_tokens", "max"),
        ("mean_sqrt_len_tokens", "mean_sqrt_len"),
        ("weightedmean_tokens", "weightedmean"),
    ] {
        let tiny = Tiny::new();
        tiny.pooling(mode);
        load_error(&tiny, &["1_Pooling/config.json", word]);
    }
    let tiny = Tiny::new();
    tiny.write("1_Pooling/config.json", "{}");
    load_error(&tiny, &["1_Pooling/config.json"]);
    tiny.write_json(
        "1_Pooling/config.json",
        &json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }),
    );
    load_error(&tiny, &["1_Pooling/config.json", "cls", "mean"]);
    tiny.write_json("1_Pooling/config.json", &json!({ "pooling_mode": "mean" }));
    assert_matches_reference(&tiny, 1e-5);
}

#[test]
fn invalid_tensors_are_named() {
    let tiny = Tiny::new();
    tiny.write_weights(&tiny.tensors().into_iter().filter(|tensor| tensor.0 != QUERY).collect::<Vec<_>>());
    assert!(matches!(load_error(&tiny, &["model.safetensors", QUERY]), LoadError::MissingTensor { .. }));

    tiny.with_tensor(QUERY, |tensor| tensor.2 = vec![20, 80]);
    assert!(matches!(
        load_error(&tiny, &["model.safetensors", QUERY, "[20, 80]", "[40, 40]"]),
        LoadError::WrongShape { .. }
    ));

    tiny.with_tensor(QUERY, |tensor| tensor.1 = Dtype::I32);
    assert!(matches!(
        load_error(&tiny, &["model.safetensors", QUERY, "I32", "BF16"]),
        LoadError::Unsupported { .. }
    ));

    // A bad value at the start, the end and in between, of a matrix and of a LayerNorm.
    for (name, count) in [(QUERY, 1600), ("embeddings.LayerNorm.bias", 40)] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, count - 1] {
                tiny.with_tensor(name, |tensor| tensor.3[at * 4..][..4].copy_from_slice(&bad.to_le_bytes()));
                assert!(matches!(
                    load_error(&tiny, &["model.safetensors", name]),
                    LoadError::NotFinite { .. }
                ));
            }
        }
    }
}

#[test]
fn weights_that_overflow_give_an_error() {
    for precision in PRECISIONS {
        let tiny = Tiny::new();
        tiny.with_tensor(QUERY, |tensor| {
            tensor.3 = [f32::MAX; 1600].iter().flat_map(|x| x.to_le_bytes()).collect();
        });
        let model = load_in(tiny.path(), KernelChoice::Auto, precision).unwrap();
        let tokens = model.tokenize(&tiny.golden.texts[0].text, TruncationSide::End).unwrap();
        let result = model.encode(&threads(1), &[&tokens]);
        assert_eq!(result, Err(EncodeError::NotFinite { text: 0 }), "{precision}");
    }
}

#[test]
fn weights_in_half_precision_are_widened() {
    let narrow = |dtype, half: fn(f32) -> u16| {
        let tiny = Tiny::new();
        let tensors = tiny.tensors().into_iter().map(|(name, _, shape, bytes)| {
            let values = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
            (name, dtype, shape, values.flat_map(|value| half(value).to_le_bytes()).collect())
        });
        tiny.write_weights(&tensors.collect::<Vec<_>>());
        tiny
    };
    // The weights lose 16 or 13 bits, so the vectors are only approximately equal.
    assert_matches_reference(&narrow(Dtype::BF16, |x| (x.to_bits() >> 16) as u16), 0.3);
    // A conversion to binary16 that suffices here: the weights are multiples of 2^−25 below 1.25, and small ones become
    // 0.
    let f16 = |x: f32| {
        let bits = x.to_bits();
        let exponent = (bits >> 23 & 0xff) as i32 - 112;
        let sign = (bits >> 16 & 0x8000) as u16;
        if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
    };
    assert_matches_reference(&narrow(Dtype::F16, f16), 0.03);
}

#[test]
fn tensors_of_a_model_saved_with_a_task_head_are_found() {
    let tiny = Tiny::new();
    let prefixed = tiny
        .tensors()
        .into_iter()
        .map(|(name, dtype, shape, bytes)| (format!("bert.{name}"), dtype, shape, bytes));
    let head = ("cls.predictions.bias".to_owned(), Dtype::F32, vec![1], vec![0; 4]);
    tiny.write_weights(&prefixed.chain([head]).collect::<Vec<_>>());
    assert_matches_reference(&tiny, 1e-5);
}

#[test]
fn weights_in_several_files_are_one_model() {
    let tiny = Tiny::new();
    let (first, second): (Vec<_>, Vec<_>) =
        tiny.tensors().into_iter().partition(|(name, ..)| name.contains("layer.0"));
    let mut files = Map::new();
    for (file, tensors) in
        [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        tensors.iter().for_each(|(name, ..)| {
            files.insert(name.clone(), file.into());
        });
        tiny.write_weights(&tensors);
        fs::rename(tiny.path().join("model.safetensors"), tiny.path().join(file)).unwrap();
    }
    tiny.write_json("model.safetensors.index.json", &json!({ "weight_map": files }));
    assert_matches_reference(&tiny, 1e-5);
    fs::remove_file(tiny.path().join("model-00002-of-00002.safetensors")).unwrap();
    load_error(&tiny, &["model-00002-of-00002.safetensors"]);
}

#[test]
fn an_invalid_index_of_weight_files_is_named() {
    for index in
        [json!({}), json!({ "weight_map": {} }), json!({ "weight_map": { "x": "../x.safetensors" } })]
    {
        let tiny = Tiny::new();
        fs::remove_file(tiny.path().join("model.safetensors")).unwrap();
        tiny.write_json("model.safetensors.index.json", &index);
        load_error(&tiny, &["model.safetensors.index.json"]);
    }
}

/// Adds linear layers after pooling to the model. Returns the weight and bias of each.
fn with_dense(tiny: &Tiny, layers: &[(usize, usize, &str)]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let entry = |path: &str, kind: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let mut modules = vec![entry("", "Transformer"), entry("1_Pooling", "Pooling")];
    let mut weights = Vec::new();
    for (index, (inputs, outputs, activation)) in layers.iter().enumerate() {
        let path = format!("{}_Dense", index + 2);
        modules.push(entry(&path, "Dense"));
        let config = json!({ "in_features": inputs, "out_features": outputs, "bias": true,
            "activation_function": format!("torch.nn.modules.activation.{activation}") });
        tiny.write_json(&format!("{path}/config.json"), &config);
        let numbers =
            |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect::<Vec<_>>();
        let (weight, bias) = (numbers(inputs * outputs), numbers(*outputs));
        let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (weight_bytes, bias_bytes) = (bytes(&weight), bytes(&bias));
        let views = [
            ("linear.weight", TensorView::new(Dtype::F32, vec![*outputs, *inputs], &weight_bytes).unwrap()),
            ("linear.bias", TensorView::new(Dtype::F32, vec![*outputs], &bias_bytes).unwrap()),
        ];
        tiny.write(&format!("{path}/model.safetensors"), safetensors::serialize(views, None).unwrap());
        weights.push((weight, bias));
    }
    modules.push(entry("9_Normalize", "Normalize"));
    tiny.write_json("modules.json", &Value::from(modules));
    weights
}

#[test]
fn linear_layers_after_pooling_are_applied() {
    let tiny = Tiny::new();
    let weights = with_dense(&tiny, &[(40, 7, "Tanh"), (7, 50, "Identity")]);
    let model = load(tiny.path(), KernelChoice::Auto).unwrap();
    assert_eq!(model.info().dimensions, 50);
    for expected in &tiny.golden.texts {
        let linear = |x: &[f32], (weight, bias): &(Vec<f32>, Vec<f32>)| -> Vec<f32> {
            let rows = weight.chunks_exact(x.len()).zip(bias);
            rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias).collect()
        };
        let inner: Vec<f32> = linear(&vector(&expected.mean), &weights[0]).iter().map(|x| x.tanh()).collect();
        let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
        let error = distance(&model.encode(&threads(1), &[&tokens]).unwrap(), &linear(&inner, &weights[1]));
        assert!(error < 1e-4, "{:?}: {error}", expected.text);
    }
}

#[test]
fn a_linear_layer_that_does_not_fit_is_named() {
    let tiny = Tiny::new();
    with_dense(&tiny, &[(40, 7, "Tanh")]);
    for (key, value) in
        [("in_features", json!(41)), ("out_features", json!(0)), ("activation_function", json!("x.ReLU"))]
    {
        let original = tiny.read("2_Dense/config.json");
        tiny.set("2_Dense/config.json", key, value);
        load_error(&tiny, &["2_Dense/config.json", key]);
        tiny.write("2_Dense/config.json", original);
    }
    tiny.set("2_Dense/config.json", "out_features", 8);
    load_error(&tiny, &["2_Dense/model.safetensors", "linear.weight"]);
}

#[test]
fn prompts_are_read_and_change_the_fingerprint() {
    let tiny = Tiny::new();
    let plain = load(tiny.path(), KernelChoice::Auto).unwrap();
    assert_eq!((plain.prompts().default_prompt(), plain.prompts().named(&["query"])), ("", None));
    let prompts =
        json!({ "prompts": { "query": "the cat: ", "passage": "" }, "default_prompt_name": "query" });
    tiny.write_json("config_sentence_transformers.json", &prompts);
    let prompted = load(tiny.path(), KernelChoice::Auto).unwrap();
    assert_eq!(prompted.prompts().named(&["search_query", "query"]), Some("the cat: "));
    assert_eq!(prompted.prompts().default_prompt(), "the cat: ");
    assert_ne!(plain.fingerprint(), prompted.fingerprint());
}

#[test]
fn truncated_weights_are_named() {
    let tiny = Tiny::new();
    let original = tiny.read("model.safetensors");
    for length in [0, 1, 7, 8, 9, 100, 2000, original.len() / 2, original.len() - 1] {
        tiny.write("model.safetensors", &original[..length]);
        load_error(&tiny, &["model.safetensors"]);
    }
    tiny.write("model.safetensors", [&original[..], &[0]].concat());
    load_error(&tiny, &["model.safetensors"]);
    tiny.write("model.safetensors", [&u64::MAX.to_le_bytes()[..], &original[8..]].concat());
    load_error(&tiny, &["model.safetensors"]);
}

#[test]
fn a_tokenizer_of_another_model_is_rejected() {
    let tiny = Tiny::new();
    let mut tokenizer: Value = serde_json::from_slice(&tiny.read("tokenizer.json")).unwrap();
    tokenizer["model"]["vocab"]["beyond"] = json!(65);
    tiny.write_json("tokenizer.json", &tokenizer);
    assert!(matches!(
        load_error(&tiny, &["tokenizer.json", "65"]),
        LoadError::TokenizerMismatch { largest: 65, rows: 65, .. }
    ));
}

/// The tokenizers library panics on this file.
#[test]
fn a_tokenizer_with_an_undefined_special_token_is_rejected() {
    let tiny = Tiny::new();
    let mut tokenizer: Value = serde_json::from_slice(&tiny.read("tokenizer.json")).unwrap();
    tokenizer["post_processor"]["special_tokens"] = json!({});
    tiny.write_json("tokenizer.json", &tokenizer);
    assert!(matches!(load_error(&tiny, &["tokenizer.json"]), LoadError::Malformed { .. }));
}

#[test]
fn a_text_is_lowercased_if_the_configuration_requires_it() {
    let tiny = Tiny::new();
    let mut tokenizer: Value = serde_json::from_slice(&tiny.read("tokenizer.json")).unwrap();
    tokenizer["normalizer"]["lowercase"] = json!(false);
    tiny.write_json("tokenizer.json", &tokenizer);
    let ids = |text| try_load(&tiny).unwrap().tokenize(text, TruncationSide::End).unwrap().ids().to_vec();
    assert_ne!(ids("THE CAT"), ids("the cat"));
    tiny.write("sentence_bert_config.json", r#"{"max_seq_length": 40, "do_lower_case": true}"#);
    assert_eq!(ids("THE CAT"), ids("the cat"));
}

#[test]
fn the_fingerprint_covers_weights_tokenizer_and_pooling() {
    let fingerprint = |change: &dyn Fn(&Tiny)| {
        let tiny = Tiny::new();
        change(&tiny);
        try_load(&tiny).unwrap().fingerprint().to_owned()
    };
    let plain = fingerprint(&|_| {});
    assert_eq!(plain.len(), 32);
    assert!(plain.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(plain, fingerprint(&|_| {}));
    // The maximum length does not change the vector of a text that fits.
    assert_eq!(
        plain,
        fingerprint(&|tiny| tiny.write("sentence_bert_config.json", r#"{"max_seq_length": 20}"#))
    );
    let weights = fingerprint(&|tiny| tiny.with_tensor(QUERY, |tensor| tensor.3[0] ^= 1));
    let pooling = fingerprint(&|tiny| tiny.pooling("cls_token"));
    let tokenizer = fingerprint(&|tiny| {
        tiny.write(
            "tokenizer.json",
            String::from_utf8(tiny.read("tokenizer.json")).unwrap().replace("\"##at\"", "\"##et\""),
        );
    });
    for (i, a) in [&plain, &weights, &pooling, &tokenizer].iter().enumerate() {
        for b in [&plain, &weights, &pooling, &tokenizer].iter().skip(i + 1) {
            assert_ne!(a, b);
        }
    }
    let minilm = |kernels| minilm(kernels).unwrap().fingerprint().to_owned();
    assert_eq!(minilm(KernelChoice::Auto), minilm(KernelChoice::Portable));
}

/// A change to the bytes of a file.
#[derive(Clone, Debug)]
enum Damage {
    /// Replaced bytes. Positions are fractions of the length, so that headers and bodies are both hit.
    Bytes(Vec<(f64, u8)>),
    /// The file is truncated.
    Truncate(f64),
    /// Inserted bytes.
    Insert(f64, Vec<u8>),
    /// Replaced digits: sizes, offsets and ids that are still well-formed.
    Digits(Vec<(f64, u8)>),
}

impl Damage {
    fn apply(&self, mut bytes: Vec<u8>, reach: usize) -> Vec<u8> {
        let reach = reach.min(bytes.len());
        let position = |share: &f64| ((share * reach as f64) as usize).min(bytes.len() - 1);
        match self {
            Self::Bytes(changes) => {
                let changes: Vec<_> = changes.iter().map(|(share, byte)| (position(share), *byte)).collect();
                changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            }
            Self::Truncate(share) => bytes.truncate(position(share)),
            Self::Insert(share, more) => {
                let at = position(share);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Digits(changes) => {
                let digits: Vec<usize> = (0..reach).filter(|i| bytes[*i].is_ascii_digit()).collect();
                for (share, digit) in changes {
                    let at = digits.get((share * digits.len() as f64) as usize).copied().unwrap_or(0);
                    bytes[at] = b'0' + digit % 10;
                }
            }
        }
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let change = (0.0..1.0, any::<u8>());
    prop_oneof![
        prop::collection::vec(change.clone(), 1..6).prop_map(Damage::Bytes),
        (0.0..1.0).prop_map(Damage::Truncate),
        (0.0..1.0, prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(share, more)| Damage::Insert(share, more)),
        prop::collection::vec(change, 1..4).prop_map(Damage::Digits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_content_makes_the_loader_panic(
        (name, reach) in prop_oneof![
            3 => Just(("model.safetensors", usize::MAX)),
            4 => Just(("model.safetensors", 3000)), // the header
            2 => Just(("config.json", usize::MAX)),
            3 => Just(("tokenizer.json", usize::MAX)),
            1 => Just(("modules.json", usize::MAX)),
            1 => Just(("1_Pooling/config.json", usize::MAX)),
        ],
        damage in damage(),
    ) {
        thread_local!(static TINY: Tiny = Tiny::new());
        TINY.with(|tiny| {
            let original = tiny.read(name);
            tiny.write(name, damage.apply(original.clone(), reach));
            if let Ok(model) = try_load(tiny) {
                // A damaged model that loads must also compute.
                if let Ok(tokens) = model.tokenize("the cat sat 1 2 3", TruncationSide::End) {
                    // Damaged weights may overflow, which is an error.
                    let result = model.encode(&threads(1), &[&tokens]).map(|vector| vector.len());
                    let dimensions = model.info().dimensions;
                    assert!(
                        result == Ok(dimensions) || result == Err(EncodeError::NotFinite { text: 0 }),
                        "{result:?}"
                    );
                }
            }
            tiny.write(name, original);
        });
    }
}
