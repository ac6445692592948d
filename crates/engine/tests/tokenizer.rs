//! Truncation: tokenizing only the start of a text gives the same tokens as tokenizing all of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

mod support;

use std::sync::LazyLock;

use embeddery_engine::{
    KernelChoice, LoadError, LoadOptions, Model, ModelFiles, TokenizeError, TruncationSide,
};
use proptest::prelude::*;
use support::{minilm, minilm_directory, tiny::Tiny};

static MINILM: LazyLock<Model> = LazyLock::new(|| minilm(KernelChoice::Auto).unwrap());

/// The same tokenizer file without truncation, as the reference.
static REFERENCE: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
    let mut tokenizer = tokenizers::Tokenizer::from_file(minilm_directory().join("tokenizer.json")).unwrap();
    tokenizer.with_truncation(None).unwrap();
    tokenizer.with_padding(None);
    tokenizer
});

fn check(text: &str) -> Result<(), TestCaseError> {
    let limit = MINILM.info().max_tokens;
    let all_ids = REFERENCE.encode(text, true).unwrap().get_ids().to_vec();
    let excerpt: String = text.chars().take(60).collect();
    prop_assert_eq!(MINILM.count_tokens(text).unwrap(), all_ids.len(), "{:?}", excerpt);
    let (start, end) = (
        MINILM.tokenize(text, TruncationSide::End).unwrap(),
        MINILM.tokenize(text, TruncationSide::Start).unwrap(),
    );
    let untruncated = MINILM.tokenize(text, TruncationSide::None);
    if all_ids.len() <= limit {
        prop_assert_eq!(start.ids(), &all_ids[..], "{:?}", excerpt);
        prop_assert_eq!(end.ids(), &all_ids[..], "{:?}", excerpt);
        prop_assert!(!start.truncated() && !end.truncated());
        let untruncated = untruncated.unwrap();
        prop_assert_eq!(untruncated.ids(), &all_ids[..]);
    } else {
        let (first, last) = (all_ids[0], all_ids[all_ids.len() - 1]);
        let own = &all_ids[1..all_ids.len() - 1];
        let max_content = limit - 2;
        prop_assert_eq!(start.ids(), &[&[first], &own[..max_content], &[last]].concat()[..], "{:?}", excerpt);
        prop_assert_eq!(
            end.ids(),
            &[&[first], &own[own.len() - max_content..], &[last]].concat()[..],
            "{:?}",
            excerpt
        );
        prop_assert!(start.truncated() && end.truncated());
        let Err(TokenizeError::TooLong { tokens, limit: reported_limit }) = untruncated else {
            return Err(TestCaseError::fail(format!("not rejected: {excerpt:?}")));
        };
        prop_assert_eq!((tokens, reported_limit), (all_ids.len(), limit));
    }
    Ok(())
}

/// Pieces of text of all kinds that tokenizers treat differently.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,12} ",
        2 => "[A-ZÀ-ÿa-z]{1,20}[ \t\n\r]{1,3}",
        2 => "\\PC{1,30}",
        1 => any::<String>(),
        1 => "[\u{4e00}-\u{4eff}]{1,40}",
        1 => "[\u{0300}-\u{036f} a]{1,8}",
        // Unicode white space that the tokenizer drops as a control character, which joins the words around it.
        2 => "[a-z]{1,70}[\u{b}\u{c}\u{85}\u{1c}][a-z]{1,70}",
        1 => "[a-z]{0,5}[\u{a0}\u{1680}\u{2003}\u{2028}\u{3000}\u{200b}\u{feff}][a-z]{0,5}",
        1 => "(\\[SEP\\]|\\[CLS\\]|\\[MASK\\]|\\[PAD\\]| \\[UNK\\] ){1,4}",
        1 => "[a-zé.!?]{1,200}",
        1 => "[!-/:-End]{1,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_truncated_text_has_the_tokens_of_the_whole_text(pieces in prop::collection::vec(piece(), 0..400)) {
        check(&pieces.concat())?;
    }
}

/// A word that is joined across a dropped control character, at every position near the end of the first tokenized
/// prefix. Random texts seldom contain this case.
#[test]
fn a_word_around_a_dropped_control_character_is_one_word() {
    for white in ['\u{b}', '\u{c}', '\u{85}', '\u{1c}'] {
        for words in 225..254 {
            // Tokens of nine bytes, then a word of more than 100 letters, which is one unknown token. A prefix that
            // ends inside the word would give many tokens instead.
            let word = format!("{}{white}{}", "az".repeat(30), "za".repeat(30));
            let text = format!("{}{word}{}", "language ".repeat(words), " end".repeat(300));
            check(&text).unwrap_or_else(|error| panic!("{words} words, {white:?}: {error}"));
        }
    }
}

/// The first tokenized prefix has as many tokens as the model accepts, and the text has more.
#[test]
fn a_text_is_truncated_at_exactly_the_limit() {
    for long_words in 0..254 {
        check(&("language ".repeat(long_words) + &"word ".repeat(600))).unwrap();
    }
}

#[test]
fn texts_of_a_megabyte_are_truncated() {
    let size = 1 << 20;
    for text in [
        "word ".repeat(size / 5),
        "a".repeat(size),
        "長".repeat(size / 3),
        "\u{1}".repeat(size),
        " ".repeat(size),
        "a.".repeat(size / 2),
    ] {
        check(&text).unwrap();
    }
}

#[test]
fn truncation_and_padding_of_the_tokenizer_file_are_ignored() {
    // MiniLM's tokenizer.json sets both to 128.
    let text = "word ".repeat(200);
    assert_eq!(MINILM.tokenize(&text, TruncationSide::End).unwrap().len(), 202);
    assert_eq!(MINILM.tokenize("word", TruncationSide::End).unwrap().len(), 3);
}

#[test]
fn max_length_may_be_raised_to_the_positions_and_no_further() {
    let files = ModelFiles::open(&minilm_directory()).unwrap();
    let load = |length| files.load(&LoadOptions { max_length: Some(length), ..LoadOptions::default() });
    let text = "word ".repeat(1000);
    for length in [512, 3] {
        let model = load(length).unwrap();
        assert_eq!(model.info().max_tokens, length);
        assert_eq!(model.tokenize(&text, TruncationSide::End).unwrap().len(), length);
    }
    for length in [0, 1, 2, 513, usize::MAX] {
        let error = load(length).err().unwrap();
        assert!(matches!(error, LoadError::Setting { setting: "max_length", .. }), "{length}: {error}");
    }
}

#[test]
fn the_limit_comes_from_the_first_file_that_has_one() {
    let tiny = Tiny::new();
    let limit = || ModelFiles::open(tiny.path()).unwrap().info().max_tokens;
    assert_eq!(limit(), 48);
    tiny.write("tokenizer_config.json", r#"{"model_max_length": 1e30}"#);
    assert_eq!(limit(), 48);
    tiny.write("tokenizer_config.json", r#"{"model_max_length": 40}"#);
    assert_eq!(limit(), 40);
    tiny.write("sentence_bert_config.json", r#"{"max_seq_length": null}"#);
    assert_eq!(limit(), 40);
    tiny.write("sentence_bert_config.json", r#"{"max_seq_length": 12}"#);
    assert_eq!(limit(), 12);
    tiny.write("sentence_bert_config.json", r#"{"max_seq_length": 4000}"#);
    assert_eq!(limit(), 48);
}
