//! Compares vectors with those of the reference implementations, for every kernel set of this machine: MiniLM with
//! sentence-transformers, and a tiny model of irregular sizes for each architecture with transformers (tools/golden).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use embeddery_engine::{KernelChoice, Model, Pooling, Precision, TruncationSide, normalize};
use serde::Deserialize;
use support::{
    KERNELS, PRECISIONS, cosine, distance, encode, golden, load, load_in, minilm, threads,
    tiny::{ARCHITECTURES, Tiny},
    tokenize_all, vector,
};

/// Maximum difference of a component. At most 3.2e-7 was measured, for any kernel set.
const MAX_DIFFERENCE: f32 = 2e-6;

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
            "{}: minimum cosine {min_cosine:.9}, maximum difference {max_distance:.1e}",
            model.kernels()
        );
        assert!(max_distance <= MAX_DIFFERENCE, "{measured}");
    }
    assert!(tried >= 1);
}

#[test]
fn minilm_truncates_like_the_reference() {
    let golden: Golden = golden("minilm.json");
    let model = minilm(KernelChoice::Auto).unwrap();
    assert_eq!(model.info().max_tokens, golden.limit);
    for expected in &golden.texts {
        assert_eq!(model.count_tokens(&expected.text).unwrap(), expected.tokens, "{:?}", expected.text);
        let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
        assert_eq!(tokens.len(), expected.tokens.min(golden.limit), "{:?}", expected.text);
        assert_eq!(tokens.truncated(), expected.tokens > golden.limit, "{:?}", expected.text);
    }
}

#[test]
fn minilm_has_the_properties_of_its_files() {
    let model = minilm(KernelChoice::Auto).unwrap();
    let info = model.info();
    assert_eq!((info.architecture, info.dimensions, info.max_tokens), ("bert", 384, 256));
    assert_eq!((info.layers, info.vocabulary, info.pooling), (6, 30522, Pooling::Mean));
    assert_eq!(info.weight_bytes, 90_868_376);
}

/// Minimum cosines to the reference on these texts were 0.99996 for bf16 and 0.9990 for int8.
#[test]
fn minilm_is_close_to_the_reference_in_fewer_bits() {
    let golden: Golden = golden("minilm.json");
    let texts: Vec<&str> = golden.texts.iter().map(|text| text.text.as_str()).collect();
    for (kernels, precision) in KERNELS.into_iter().flat_map(|kernels| PRECISIONS.map(|p| (kernels, p))) {
        let Some(model) = load_in(&support::minilm_directory(), kernels, precision) else { continue };
        assert_eq!(model.precision(), precision);
        let tokens = tokenize_all(&model, &texts);
        let vectors = encode(&model, &threads(2), &tokens.iter().collect::<Vec<_>>());
        let cosines =
            golden.texts.iter().zip(&vectors).map(|(text, found)| cosine(found, &vector(&text.vector)));
        let minimum = cosines.fold(1.0, f64::min);
        let required = match precision {
            Precision::Int8 => 0.998,
            Precision::Bf16 => 0.9999,
            _ => 0.99999,
        };
        assert!(minimum >= required, "{} {precision}: {minimum}", model.kernels());
    }
}

/// Compares mean, first and last token of every architecture's model.
#[test]
fn tiny_models_give_the_reference_vectors() {
    let poolings =
        [("mean_tokens", Pooling::Mean), ("cls_token", Pooling::Cls), ("lasttoken", Pooling::LastToken)];
    for name in ARCHITECTURES {
        for (mode, pooling) in poolings {
            let tiny = Tiny::for_architecture(name);
            tiny.pooling(mode);
            let models: Vec<Model> =
                KERNELS.into_iter().filter_map(|kernels| load(tiny.path(), kernels)).collect();
            assert!(!models.is_empty());
            for model in models {
                assert_eq!(model.info().pooling, pooling);
                assert_matches_reference(&model, &tiny, name);
            }
        }
    }
}

fn assert_matches_reference(model: &Model, tiny: &Tiny, name: &str) {
    for expected in &tiny.golden.texts {
        let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
        assert_eq!(tokens.ids(), expected.ids, "{name} {:?}", expected.text);
        // Two threads share a text.
        let found = model.encode(&threads(2), &[&tokens]).unwrap();
        let reference = reference(expected, model.info().pooling);
        let error = distance(&found, &reference);
        let message =
            format!("{name} {} {:?} {:?}: {error}", model.kernels(), model.info().pooling, expected.text);
        let magnitude = reference.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
        assert!(error <= 1e-5 * magnitude, "{message}");
        assert!(cosine(&found, &reference) >= 0.99999, "{message}");
    }
}

fn reference(expected: &support::tiny::GoldenText, pooling: Pooling) -> Vec<f32> {
    vector(match pooling {
        Pooling::Mean => &expected.mean,
        Pooling::Cls => &expected.cls,
        Pooling::LastToken => &expected.last,
    })
}

/// The tolerances are wider than for a real model, because tiny models average rounding errors over few values.
#[test]
fn tiny_models_are_close_to_the_reference_in_fewer_bits() {
    for name in ARCHITECTURES {
        let tiny = Tiny::for_architecture(name);
        for (kernels, precision) in KERNELS.into_iter().flat_map(|kernels| PRECISIONS.map(|p| (kernels, p))) {
            let Some(model) = load_in(tiny.path(), kernels, precision) else { continue };
            for expected in &tiny.golden.texts {
                let tokens = model.tokenize(&expected.text, TruncationSide::End).unwrap();
                let similarity =
                    cosine(&model.encode(&threads(2), &[&tokens]).unwrap(), &vector(&expected.mean));
                let required = match precision {
                    Precision::Int8 => 0.99,
                    Precision::Bf16 => 0.999,
                    _ => 0.99999,
                };
                assert!(
                    similarity >= required,
                    "{name} {} {precision} {:?}: {similarity}",
                    model.kernels(),
                    expected.text
                );
            }
        }
    }
}
