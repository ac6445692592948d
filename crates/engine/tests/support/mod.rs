//! Shared helpers of the engine's tests: golden vectors, the real model's directory, and tiny models.

#![expect(dead_code, reason = "each test binary uses a subset")]

pub(crate) mod tiny;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_engine::{
    KernelChoice, LoadOptions, Model, ModelFiles, Precision, Threads, Tokens, TruncationSide,
};
use serde::de::DeserializeOwned;

/// The real model's directory.
pub(crate) fn minilm_directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = root.join("models/embedding_models_data/sentence-transformers/all-MiniLM-L6-v2");
    assert!(
        directory.join("model.safetensors").is_file(),
        "the test model is not in {}: run `make test`, which fetches it",
        directory.display()
    );
    directory
}

/// Loads the real model with the given kernels; `None` if this CPU lacks them.
pub(crate) fn minilm(kernels: KernelChoice) -> Option<Model> {
    load(&minilm_directory(), kernels)
}

/// Loads a model in f32 with the given kernels; `None` if this CPU lacks them.
pub(crate) fn load(directory: &Path, kernels: KernelChoice) -> Option<Model> {
    load_in(directory, kernels, Precision::F32)
}

/// Loads a model with the given kernels and precision; `None` if this CPU lacks the kernels.
pub(crate) fn load_in(directory: &Path, kernels: KernelChoice, precision: Precision) -> Option<Model> {
    let files = ModelFiles::open(directory).unwrap();
    match files.load(&LoadOptions { kernels, precision, ..LoadOptions::default() }) {
        Ok(model) => Some(model),
        Err(error) if kernels != KernelChoice::Auto && error.to_string().contains("CPU") => None,
        Err(error) => panic!("{error}"),
    }
}

/// All kernel sets. A machine may lack some.
pub(crate) const KERNELS: [KernelChoice; 3] =
    [KernelChoice::Portable, KernelChoice::Avx2, KernelChoice::Avx512];

pub(crate) const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

pub(crate) fn threads(count: usize) -> Threads {
    Threads::new(NonZeroUsize::new(count).unwrap()).unwrap()
}

/// The vectors of a batch, one per text.
pub(crate) fn encode(model: &Model, threads: &Threads, batch: &[&Tokens]) -> Vec<Vec<f32>> {
    model.encode(threads, batch).unwrap().chunks_exact(model.info().dimensions).map(<[f32]>::to_vec).collect()
}

pub(crate) fn tokenize_all(model: &Model, texts: &[impl AsRef<str>]) -> Vec<Tokens> {
    texts.iter().map(|text| model.tokenize(text.as_ref(), TruncationSide::End).unwrap()).collect()
}

/// Reads a file of tests/golden.
pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = golden_directory().join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

pub(crate) fn golden_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// f32 from base64 of their little-endian bytes.
pub(crate) fn vector(base64: &str) -> Vec<f32> {
    let bytes = BASE64_STANDARD.decode(base64).unwrap();
    bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The maximum difference of a component.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
