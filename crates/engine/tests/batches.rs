//! A text's vector is bitwise the same for any batch, any order and any number of threads. A batch with tokens of
//! another model is an error and has no side effect.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use std::sync::LazyLock;

use embeddery_engine::{EncodeError, KernelChoice, Model, Threads, Tokens, TruncationSide};
use proptest::prelude::*;
use support::{
    KERNELS, PRECISIONS, encode, load_in, minilm_directory, threads,
    tiny::{ARCHITECTURES, Tiny},
    tokenize_all,
};

struct Subject {
    model: Model,
    texts: Vec<Tokens>,
    /// The vector of each text, encoded without other texts.
    alone: Vec<Vec<f32>>,
}

impl Subject {
    fn new(model: Model, texts: &[String]) -> Self {
        let texts = tokenize_all(&model, texts);
        let alone = texts.iter().flat_map(|text| encode(&model, &POOLS[0], &[text])).collect();
        Self { model, texts, alone }
    }

    fn check(&self, pool: &Threads, batch: &[usize]) -> Result<(), TestCaseError> {
        let tokens: Vec<&Tokens> = batch.iter().map(|index| &self.texts[*index]).collect();
        let vectors = encode(&self.model, pool, &tokens);
        prop_assert_eq!(vectors.len(), batch.len());
        for (index, vector) in batch.iter().zip(&vectors) {
            let same = vector.iter().zip(&self.alone[*index]).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(
                same,
                "{} {}: text {} of batch {:?}",
                self.model.kernels(),
                self.model.precision(),
                index,
                batch
            );
        }
        Ok(())
    }
}

static POOLS: LazyLock<Vec<Threads>> = LazyLock::new(|| (1..=4).map(threads).collect());

/// Texts of 2 to 256 tokens.
fn texts() -> Vec<String> {
    let lengths = [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 30, 31, 46, 47, 62, 63, 64, 100, 200, 400];
    let word = |i: usize| ["hello", "the", "cat", "world", "zebra", "at", "."][i * i % 7];
    lengths.map(|length| (0..length).map(|i| word(i + length)).collect::<Vec<_>>().join(" ")).to_vec()
}

static TINY: LazyLock<Vec<Subject>> = LazyLock::new(|| subjects("tiny", &KERNELS));
/// The other architectures, with the fastest kernels.
static OTHERS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    ARCHITECTURES[1..].iter().flat_map(|name| subjects(name, &[KernelChoice::Auto])).collect()
});

fn subjects(name: &str, kernels: &[KernelChoice]) -> Vec<Subject> {
    let tiny = Tiny::for_architecture(name);
    kernels
        .iter()
        .flat_map(|kernels| PRECISIONS.map(|precision| (*kernels, precision)))
        .filter_map(|(kernels, precision)| load_in(tiny.path(), kernels, precision))
        .map(|model| Subject::new(model, &texts()))
        .collect()
}

static MINILM: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let load = |precision| load_in(&minilm_directory(), KernelChoice::Auto, precision).unwrap();
    PRECISIONS.map(|precision| Subject::new(load(precision), &texts())).into()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tiny_vectors_do_not_depend_on_batch_order_or_threads(
        batch in prop::collection::vec(0usize..24, 1..60), pool in 0usize..4,
    ) {
        for subject in &*TINY {
            subject.check(&POOLS[pool], &batch)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn vectors_of_all_architectures_are_independent_of_batch_order_and_threads(
        batch in prop::collection::vec(0usize..24, 1..60), pool in 0usize..4,
    ) {
        for subject in &*OTHERS {
            subject.check(&POOLS[pool], &batch)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn minilm_vectors_do_not_depend_on_batch_order_or_threads(
        batch in prop::collection::vec(0usize..24, 1..24), pool in 0usize..4,
    ) {
        for subject in &*MINILM {
            subject.check(&POOLS[pool], &batch)?;
        }
    }
}

#[test]
fn one_model_serves_many_callers_at_once() {
    let subject = &TINY[0];
    std::thread::scope(|scope| {
        for caller in 0..8 {
            scope.spawn(move || {
                let batch: Vec<usize> = (0..24).map(|i| (i * 5 + caller) % 24).collect();
                subject.check(&POOLS[caller % 4], &batch).unwrap();
            });
        }
    });
}

#[test]
fn no_texts_give_no_vectors() {
    assert!(TINY[0].model.encode(&POOLS[1], &[]).unwrap().is_empty());
}

#[test]
fn tokens_of_another_model_are_rejected() {
    // Ids beyond the tiny vocabulary and more tokens than it has positions give an error before anything is computed.
    // The next batch is not affected.
    let foreign = MINILM[0].model.tokenize(&"Zürich 漢字 zebra ".repeat(100), TruncationSide::End).unwrap();
    for subject in &*TINY {
        let own = &subject.texts[5];
        let error = subject.model.encode(&POOLS[1], &[own, &foreign, own]).unwrap_err();
        assert!(matches!(&error, EncodeError::ForeignTokens { text: 1, .. }), "{error}");
        let vectors = encode(&subject.model, &POOLS[1], &[own, own]);
        assert_eq!((&vectors[0], &vectors[1]), (&subject.alone[5], &subject.alone[5]));
    }
}

#[test]
fn ten_thousand_texts_at_once() {
    let subject = &TINY[0];
    let batch: Vec<usize> = (0..10_000).map(|i| i % 24).collect();
    subject.check(&POOLS[1], &batch).unwrap();
}
