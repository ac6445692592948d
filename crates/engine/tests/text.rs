//! What is known before weights are loaded: how much memory they will take, and what stands around a transformer that
//! another runtime computes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod support;

use embeddery_engine::{LoadOptions, ModelFiles, Pooling, TextFiles, TruncationSide};
use support::{
    PRECISIONS, minilm_directory,
    tiny::{ARCHITECTURES, Tiny},
};

#[test]
fn no_model_takes_more_memory_than_was_told() {
    for architecture in ARCHITECTURES {
        let tiny = Tiny::of(architecture);
        let files = ModelFiles::open(tiny.path()).unwrap();
        for precision in PRECISIONS {
            let options = LoadOptions { precision, ..LoadOptions::default() };
            let (told, has) =
                (files.memory(&options, 2).unwrap(), files.load(&options).unwrap().weight_bytes());
            assert!(told >= has as u64, "{architecture} in {precision}: {told} told, {has} of weights");
        }
    }
}

#[test]
fn the_fingerprint_is_known_without_loading() {
    let tiny = Tiny::new();
    let files = ModelFiles::open(tiny.path()).unwrap();
    let loaded = files.load(&LoadOptions::default()).unwrap();
    assert_eq!(files.fingerprint().unwrap(), loaded.fingerprint());
}

#[test]
fn around_an_unknown_transformer_stands_what_stands_around_ours() {
    let tiny = Tiny::new();
    let model = ModelFiles::open(tiny.path()).unwrap().load(&LoadOptions::default()).unwrap();
    // Its own engine has never heard of it.
    tiny.set("config.json", "model_type", "deberta-v9");
    tiny.pooling("cls_token");
    let files = TextFiles::open(tiny.path()).unwrap();
    assert_eq!(files.architecture(), "deberta-v9");
    assert_eq!((files.dimensions(), files.max_tokens()), (model.info().dimensions, model.info().max_tokens));
    assert_eq!(files.pooling(), Pooling::Cls);
    let text = files.load(None).unwrap();
    let sample = "some words, and more of them than the model reads ".repeat(9);
    for keep in [TruncationSide::Start, TruncationSide::End] {
        let (ours, theirs) = (model.tokenize(&sample, keep).unwrap(), text.tokenize(&sample, keep).unwrap());
        assert_eq!(ours.ids(), theirs.ids());
    }
    let mut pooled = [0.0; 2];
    text.pool(&[1.0, 2.0, 3.0, 4.0], &mut pooled);
    assert_eq!(pooled, [1.0, 2.0]);
}

#[test]
fn lengths_are_checked_against_the_positions() {
    let files = TextFiles::open(&minilm_directory()).unwrap();
    assert_eq!(files.max_tokens(), 256);
    for length in [0, 513] {
        let error = files.load(Some(length)).unwrap_err().to_string();
        assert!(error.contains("max_length") && error.contains("512"), "{error}");
    }
    let long = "word ".repeat(600);
    assert_eq!(files.load(Some(512)).unwrap().tokenize(&long, TruncationSide::Start).unwrap().len(), 512);
}
