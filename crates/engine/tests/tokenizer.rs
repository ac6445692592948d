//! Cutting a text: tokenizing only its beginning gives the tokens that tokenizing all of it would, and a long text
//! costs no more than the part that is kept.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod support;

use std::sync::LazyLock;

use embeddery_engine::{
    KernelChoice, LoadError, LoadOptions, Model, ModelFiles, TokenizeError, TruncationSide,
};
use proptest::prelude::*;
use support::{minilm, minilm_directory, tiny::Tiny};

static MINILM: LazyLock<Model> = LazyLock::new(|| minilm(KernelChoice::Auto).unwrap());

/// The same files without a limit of ours: the reference for any cut.
static REFERENCE: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
    let mut tokenizer = tokenizers::Tokenizer::from_file(minilm_directory().join("tokenizer.json")).unwrap();
    tokenizer.with_truncation(None).unwrap();
    tokenizer.with_padding(None);
    tokenizer
});

fn check(text: &str) -> Result<(), TestCaseError> {
    let limit = MINILM.info().max_tokens;
    let whole = REFERENCE.encode(text, true).unwrap().get_ids().to_vec();
    let shown: String = text.chars().take(60).collect();
    prop_assert_eq!(MINILM.count_tokens(text).unwrap(), whole.len(), "{:?}", shown);
    let (start, end) = (
        MINILM.tokenize(text, TruncationSide::Start).unwrap(),
        MINILM.tokenize(text, TruncationSide::End).unwrap(),
    );
    let all = MINILM.tokenize(text, TruncationSide::All);
    if whole.len() <= limit {
        prop_assert_eq!(start.ids(), &whole[..], "{:?}", shown);
        prop_assert_eq!(end.ids(), &whole[..], "{:?}", shown);
        prop_assert!(!start.truncated() && !end.truncated());
        let all = all.unwrap();
        prop_assert_eq!(all.ids(), &whole[..]);
    } else {
        let (first, last) = (whole[0], whole[whole.len() - 1]);
        let own = &whole[1..whole.len() - 1];
        let room = limit - 2;
        prop_assert_eq!(start.ids(), &[&[first], &own[..room], &[last]].concat()[..], "{:?}", shown);
        prop_assert_eq!(
            end.ids(),
            &[&[first], &own[own.len() - room..], &[last]].concat()[..],
            "{:?}",
            shown
        );
        prop_assert!(start.truncated() && end.truncated());
        let Err(TokenizeError::TooLong { tokens, limit: said }) = all else {
            return Err(TestCaseError::fail(format!("not refused: {shown:?}")));
        };
        prop_assert_eq!((tokens, said), (whole.len(), limit));
    }
    Ok(())
}

/// Pieces of text of every kind that a tokenizer treats in its own way.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,12} ",
        2 => "[A-ZÀ-ÿa-z]{1,20}[ \t\n\r]{1,3}",
        2 => "\\PC{1,30}",
        1 => any::<String>(),
        1 => "[\u{4e00}-\u{4eff}]{1,40}",
        1 => "[\u{0300}-\u{036f} a]{1,8}",
        // White space by Unicode that the tokenizer drops as a control character, so that words grow together.
        2 => "[a-z]{1,70}[\u{b}\u{c}\u{85}\u{1c}][a-z]{1,70}",
        1 => "[a-z]{0,5}[\u{a0}\u{1680}\u{2003}\u{2028}\u{3000}\u{200b}\u{feff}][a-z]{0,5}",
        1 => "(\\[SEP\\]|\\[CLS\\]|\\[MASK\\]|\\[PAD\\]| \\[UNK\\] ){1,4}",
        1 => "[a-zé.!?]{1,200}",
        1 => "[!-/:-@]{1,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_text_has_the_tokens_of_the_whole(pieces in prop::collection::vec(piece(), 0..400)) {
        check(&pieces.concat())?;
    }
}

/// A word that grows together across a dropped control character, at every place near the first cut that the
/// tokenizer tries. Found wrong by hand, too rare for chance.
#[test]
fn a_word_around_a_dropped_control_character_is_one_word() {
    for white in ['\u{b}', '\u{c}', '\u{85}', '\u{1c}'] {
        for words in 225..254 {
            // One token in nine bytes, then a word of more than 100 letters, which is one unknown token, unless a
            // cut leaves its first half: then that is many.
            let word = format!("{}{white}{}", "az".repeat(30), "za".repeat(30));
            let text = format!("{}{word}{}", "language ".repeat(words), " end".repeat(300));
            check(&text).unwrap_or_else(|error| panic!("{words} words, {white:?}: {error}"));
        }
    }
}

/// As many tokens before the first cut as the model reads, and more behind it: cut all the same.
#[test]
fn a_cut_at_the_very_limit_is_a_cut() {
    for long_words in 0..254 {
        check(&("language ".repeat(long_words) + &"word ".repeat(600))).unwrap();
    }
}

#[test]
fn texts_of_a_megabyte() {
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
fn the_files_own_truncation_and_padding_do_not_count() {
    // MiniLM's tokenizer.json says 128 for both.
    let text = "word ".repeat(200);
    assert_eq!(MINILM.tokenize(&text, TruncationSide::Start).unwrap().len(), 202);
    assert_eq!(MINILM.tokenize("word", TruncationSide::Start).unwrap().len(), 3);
}

#[test]
fn max_length_may_be_raised_to_the_positions_and_no_further() {
    let files = ModelFiles::open(&minilm_directory()).unwrap();
    let load = |length| files.load(&LoadOptions { max_length: Some(length), ..LoadOptions::default() });
    let text = "word ".repeat(1000);
    for length in [512, 3] {
        let model = load(length).unwrap();
        assert_eq!(model.info().max_tokens, length);
        assert_eq!(model.tokenize(&text, TruncationSide::Start).unwrap().len(), length);
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
