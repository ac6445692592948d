//! Predictions before weights are loaded, and the text pipeline of a transformer that another runtime computes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use embeddery_engine::{LoadOptions, ModelFiles, Pooling, TextFiles, TruncationSide};
use support::{
    PRECISIONS, minilm_directory,
    tiny::{ARCHITECTURES, Tiny},
};

#[test]
fn no_model_uses_more_memory_than_estimated() {
    for architecture in ARCHITECTURES {
        let tiny = Tiny::for_architecture(architecture);
        let files = ModelFiles::open(tiny.path()).unwrap();
        for precision in PRECISIONS {
            let options = LoadOptions { precision, ..LoadOptions::default() };
            let (estimate, actual) =
                (files.memory(&options, 2).unwrap(), files.load(&options).unwrap().weight_bytes());
            assert!(estimate >= actual as u64, "{architecture} in {precision}: {estimate} < {actual}");
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
fn an_unknown_architecture_gets_the_same_text_pipeline() {
    let tiny = Tiny::new();
    let model = ModelFiles::open(tiny.path()).unwrap().load(&LoadOptions::default()).unwrap();
    // The engine does not support this architecture.
    tiny.set("config.json", "model_type", "deberta-v9");
    tiny.pooling("cls_token");
    let files = TextFiles::open(tiny.path()).unwrap();
    assert_eq!(files.architecture(), "deberta-v9");
    assert_eq!((files.dimensions(), files.max_tokens()), (model.info().dimensions, model.info().max_tokens));
    assert_eq!(files.pooling(), Pooling::Cls);
    let text = files.load(None).unwrap();
    let sample = "more words than the model accepts, because this repeats ".repeat(9);
    for truncation in [TruncationSide::End, TruncationSide::Start] {
        let by_model = model.tokenize(&sample, truncation).unwrap();
        let by_pipeline = text.tokenize(&sample, truncation).unwrap();
        assert_eq!(by_model.ids(), by_pipeline.ids());
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
    assert_eq!(files.load(Some(512)).unwrap().tokenize(&long, TruncationSide::End).unwrap().len(), 512);
}
