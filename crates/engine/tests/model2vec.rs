//! Compares model2vec's static models with the model2vec package (tools/golden).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use std::fs;

use embeddery_engine::{KernelChoice, LoadError, LoadOptions, Model, ModelFiles, TruncationSide};
use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use serde_json::json;
use support::{
    PRECISIONS, cosine, distance, encode, golden, golden_directory, load, load_in, threads, tiny::weight,
    vector,
};
use tempfile::TempDir;

const WIDTH: usize = 24;
/// Vocabulary of the tiny tokenizer.
const TOKENS: usize = 65;

#[derive(Deserialize)]
struct Golden {
    vectors: usize,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    mean: String,
}

type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn bytes(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The model's tensors. A model whose tokens share vectors has a mapping and weights.
fn tensors(vectors: usize) -> Vec<Tensor> {
    let mut tensors =
        vec![("embeddings", Dtype::F32, vec![vectors, WIDTH], bytes(weight("embeddings", vectors * WIDTH)))];
    if vectors < TOKENS {
        let rows = (0..TOKENS as i64).flat_map(|token| (token * 7 % vectors as i64).to_le_bytes()).collect();
        tensors.push(("mapping", Dtype::I64, vec![TOKENS], rows));
        let weights = weight("weights", TOKENS).into_iter().map(|x| x + 1.0);
        tensors.push(("weights", Dtype::F32, vec![TOKENS], bytes(weights)));
    }
    tensors
}

/// A model directory in the layout of potion's repositories.
fn directory(tensors: &[Tensor]) -> TempDir {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(directory.path().join(name), content).unwrap();
    let config = json!({
        "model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "baai/bge-base-en-v1.5",
        "apply_pca": 256, "apply_zipf": true, "hidden_dim": 256, "seq_length": 1_000_000, "normalize": true,
    });
    write("config.json", config.to_string().as_bytes());
    let modules = json!([
        { "idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding" },
        { "idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize" },
    ]);
    write("modules.json", modules.to_string().as_bytes());
    write("tokenizer.json", &fs::read(golden_directory().join("tiny/tokenizer.json")).unwrap());
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    write("model.safetensors", &safetensors::serialize(views, None).unwrap());
    directory
}

fn assert_near(model: &Model, golden: &Golden, tolerance: f32) {
    let tokens: Vec<_> =
        golden.texts.iter().map(|text| model.tokenize(&text.text, TruncationSide::End).unwrap()).collect();
    let vectors = encode(model, &threads(2), &tokens.iter().collect::<Vec<_>>());
    for (expected, found) in golden.texts.iter().zip(&vectors) {
        let reference = vector(&expected.mean);
        let error = distance(found, &reference);
        assert!(error <= tolerance, "{} {:?}: {error}", model.precision(), expected.text);
        let zero = reference.iter().all(|x| *x == 0.0);
        assert!(zero || cosine(found, &reference) >= 0.99999, "{:?}", expected.text);
    }
}

#[test]
fn static_models_give_the_reference_vectors() {
    for name in ["model2vec.json", "model2vec_shared.json"] {
        let golden: Golden = golden(name);
        let directory = directory(&tensors(golden.vectors));
        let model = load(directory.path(), KernelChoice::Auto).unwrap();
        let info = model.info();
        assert_eq!((info.architecture, info.dimensions, info.layers), ("model2vec", WIDTH, 0));
        assert_eq!((info.vocabulary, info.max_tokens), (TOKENS, 512));
        assert_near(&model, &golden, 1e-6);
        for precision in PRECISIONS {
            assert_near(&load_in(directory.path(), KernelChoice::Auto, precision).unwrap(), &golden, 1e-3);
        }
        let reloaded = load(directory.path(), KernelChoice::Auto).unwrap();
        assert_eq!(model.fingerprint(), reloaded.fingerprint());
    }
}

#[test]
fn unknown_and_special_tokens_are_dropped() {
    let directory = directory(&tensors(TOKENS));
    let model = load(directory.path(), KernelChoice::Auto).unwrap();
    let ids = |text: &str| model.tokenize(text, TruncationSide::End).unwrap().ids().to_vec();
    assert_eq!(ids("hello \u{2603} world"), ids("hello world"));
    assert!(ids("\u{2603}").is_empty());
    assert_eq!(
        model.encode(&threads(1), &[&model.tokenize("", TruncationSide::End).unwrap()]).unwrap(),
        [0.0; WIDTH]
    );
    let long = model.tokenize(&"hello ".repeat(600), TruncationSide::End).unwrap();
    assert!(long.truncated() && long.len() <= 512);
}

#[test]
fn vectors_in_fewer_bits_are_close_to_f32() {
    let numbers = weight("embeddings", TOKENS * WIDTH);
    let half: Vec<u8> = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    let eight: Vec<u8> = numbers.iter().map(|x| ((x * 400.0) as i8).cast_unsigned()).collect();
    let text = "the cat sat on the mat.";
    let encode_with = |dtype, bytes| {
        let directory = directory(&[("embeddings", dtype, vec![TOKENS, WIDTH], bytes)]);
        let model = load(directory.path(), KernelChoice::Auto).unwrap();
        model.encode(&threads(1), &[&model.tokenize(text, TruncationSide::End).unwrap()]).unwrap()
    };
    let exact = encode_with(Dtype::F32, bytes(numbers));
    assert!(cosine(&encode_with(Dtype::F16, half), &exact) > 0.99999);
    assert!(cosine(&encode_with(Dtype::I8, eight), &exact) > 0.999);
}

#[test]
fn damaged_static_models_are_named() {
    let assert_error = |tensors: &[Tensor], words: &[&str]| {
        let directory = directory(tensors);
        let loaded = ModelFiles::open(directory.path()).and_then(|files| files.load(&LoadOptions::default()));
        let error: LoadError = loaded.err().unwrap_or_else(|| panic!("expected an error with {words:?}"));
        for word in words {
            assert!(error.to_string().contains(word), "'{error}' does not contain '{word}'");
        }
    };
    assert_error(&[], &["model.safetensors", "embeddings"]);
    assert_error(&[("embeddings", Dtype::F32, vec![4], vec![0; 16])], &["embeddings", "[4]"]);
    let few = ("embeddings", Dtype::F32, vec![3, WIDTH], vec![0; 12 * WIDTH]);
    assert_error(std::slice::from_ref(&few), &["tokenizer.json", "3 rows"]);
    let rows = (0..TOKENS as i64).flat_map(i64::to_le_bytes).collect();
    assert_error(&[few, ("mapping", Dtype::I64, vec![TOKENS], rows)], &["mapping", "0 to 2"]);
}
