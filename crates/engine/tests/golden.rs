//! Vectors beside the reference implementation's, for every kernel set of this machine: the real MiniLM by
//! sentence-transformers, a tiny model of awkward sizes for each architecture by transformers (tools/golden).

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod support;

use embeddery_engine::{KernelChoice, Model, Pooling, Precision, TruncationSide, normalize};
use serde::Deserialize;
use support::{
    KERNELS, PRECISIONS, cosine, distance, encode, golden, load, load_in, minilm, threads,
    tiny::{ARCHITECTURES, Tiny},
    tokenize_all, vector,
};

/// Of a component, with a margin: under 3.2e-7 was measured for every kernel set.
const LARGEST_DIFFERENCE: f32 = 2e-6;

#[derive(Deserialize)]
struct Golden {
    limit: usize,
    texts: Vec<GoldenText>,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    /// Before truncation.
    tokens: usize,
    vector: String,
}

#[test]
fn minilm_gives_the_reference_vectors() {
    let golden: Golden = golden("minilm.json");
    let texts: Vec<&str> = golden.texts.iter().map(|text| text.text.as_str()).collect();
    let mut tried = 0;
    for kernels in KERNELS {
        let Some(model) = minilm(kernels) else { continue };
        tried += 1;
        let tokens = tokenize_all(&model, &texts);
        let mut vectors = encode(&model, &threads(2), &tokens.iter().collect::<Vec<_>>());
        vectors.iter_mut().for_each(|vector| normalize(vector));

        let (mut min_cosine, mut max_distance) = (1.0_f64, 0.0_f32);
        for (expected, found) in golden.texts.iter().zip(&vectors) {
            let reference = vector(&expected.vector);
            min_cosine = min_cosine.min(cosine(found, &reference));
            max_distance = max_distance.max(distance(found, &reference));
            assert!(
                cosine(found, &reference) >= 0.99999,
                "{:?}: {}",
                expected.text,
                cosine(found, &reference)
            );
        }
        let measured = format!(
            "{}: least cosine {min_cosine:.9}, largest difference {max_distance:.1e}",
            model.kernels()
        );
        assert!(max_distance <= LARGEST_DIFFERENCE, "{measured}");
    }
    assert!(tried >= 1);
}

#[test]
fn minilm_reads_as_many_tokens_as_the_reference() {
    let golden: Golden = golden("minilm.json");
    let model = minilm(KernelChoice::Auto).unwrap();
    assert_eq!(model.info().max_tokens, golden.limit);
    for expected in &golden.texts {
        assert_eq!(model.count_tokens(&expected.text).unwrap(), expected.tokens, "{:?}", expected.text);
        let tokens = model.tokenize(&expected.text, TruncationSide::Start).unwrap();
        assert_eq!(tokens.len(), expected.tokens.min(golden.limit), "{:?}", expected.text);
        assert_eq!(tokens.truncated(), expected.tokens > golden.limit, "{:?}", expected.text);
    }
}

#[test]
fn minilm_is_what_its_files_say() {
    let model = minilm(KernelChoice::Auto).unwrap();
    let info = model.info();
    assert_eq!((info.architecture, info.dimensions, info.max_tokens), ("bert", 384, 256));
    assert_eq!((info.layers, info.vocabulary, info.pooling), (6, 30522, Pooling::Mean));
    assert_eq!(info.weight_bytes, 90_868_376);
}

/// Least cosine to the reference, by precision; measured 0.99996 and 0.9990 on these texts.
#[test]
fn minilm_is_near_the_reference_in_fewer_bits() {
    let golden: Golden = golden("minilm.json");
    let texts: Vec<&str> = golden.texts.iter().map(|text| text.text.as_str()).collect();
    for (kernels, precision) in KERNELS.into_iter().flat_map(|kernels| PRECISIONS.map(|p| (kernels, p))) {
        let Some(model) = load_in(&support::minilm_directory(), kernels, precision) else { continue };
        assert_eq!(model.precision(), precision);
        let tokens = tokenize_all(&model, &texts);
        let vectors = encode(&model, &threads(2), &tokens.iter().collect::<Vec<_>>());
        let least =
            golden.texts.iter().zip(&vectors).map(|(text, found)| cosine(found, &vector(&text.vector)));
        let least = least.fold(1.0, f64::min);
        let due = match precision {
            Precision::Int8 => 0.998,
            Precision::Bf16 => 0.9999,
            _ => 0.99999,
        };
        assert!(least >= due, "{} {precision}: {least}", model.kernels());
    }
}

/// Mean, first and last token of every architecture's model.
#[test]
fn tiny_models_give_the_reference_vectors() {
    let poolings =
        [("mean_tokens", Pooling::Mean), ("cls_token", Pooling::Cls), ("lasttoken", Pooling::LastToken)];
    for name in ARCHITECTURES {
        for (mode, pooling) in poolings {
            let tiny = Tiny::of(name);
            tiny.pooling(mode);
            let models: Vec<Model> =
                KERNELS.into_iter().filter_map(|kernels| load(tiny.path(), kernels)).collect();
            assert!(!models.is_empty());
            for model in models {
                assert_eq!(model.info().pooling, pooling);
                gives_the_reference_vectors(&model, &tiny, name);
            }
        }
    }
}

fn gives_the_reference_vectors(model: &Model, tiny: &Tiny, name: &str) {
    for expected in &tiny.golden.texts {
        let tokens = model.tokenize(&expected.text, TruncationSide::Start).unwrap();
        assert_eq!(tokens.ids(), expected.ids, "{name} {:?}", expected.text);
        // On two threads, which share a text.
        let found = model.encode(&threads(2), &[&tokens]).unwrap();
        let reference = reference(expected, model.info().pooling);
        let off = distance(&found, &reference);
        let said =
            format!("{name} {} {:?} {:?}: {off}", model.kernels(), model.info().pooling, expected.text);
        let largest = reference.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
        assert!(off <= 1e-5 * largest, "{said}");
        assert!(cosine(&found, &reference) >= 0.99999, "{said}");
    }
}

fn reference(expected: &support::tiny::GoldenText, pooling: Pooling) -> Vec<f32> {
    vector(match pooling {
        Pooling::Mean => &expected.mean,
        Pooling::Cls => &expected.cls,
        Pooling::LastToken => &expected.last,
    })
}

/// Tiny models have nothing to average errors over, so these are wider than a real model's.
#[test]
fn tiny_models_are_near_the_reference_in_fewer_bits() {
    for name in ARCHITECTURES {
        let tiny = Tiny::of(name);
        for (kernels, precision) in KERNELS.into_iter().flat_map(|kernels| PRECISIONS.map(|p| (kernels, p))) {
            let Some(model) = load_in(tiny.path(), kernels, precision) else { continue };
            for expected in &tiny.golden.texts {
                let tokens = model.tokenize(&expected.text, TruncationSide::Start).unwrap();
                let near = cosine(&model.encode(&threads(2), &[&tokens]).unwrap(), &vector(&expected.mean));
                let due = match precision {
                    Precision::Int8 => 0.99,
                    Precision::Bf16 => 0.999,
                    _ => 0.99999,
                };
                assert!(near >= due, "{name} {} {precision} {:?}: {near}", model.kernels(), expected.text);
            }
        }
    }
}
