//! What holds for every text and every rule, and what the measured traps of real tokenizers look like.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use embeddery_chunk::{Measure, Method, Rule, Unit, chunk};
use proptest::prelude::*;

/// One token for every four bytes of a word, two special ones.
fn count(text: &str) -> usize {
    2 + text.split_whitespace().map(|word| word.len().div_ceil(4)).sum::<usize>()
}

fn measure(text: &str, unit: Unit) -> Measure {
    match unit {
        Unit::Characters => Measure::characters(text),
        Unit::Words => Measure::words(text),
        Unit::Tokens => Measure::tokens(text, &count),
    }
}

fn rules() -> impl Strategy<Value = Rule> {
    let methods = prop_oneof![
        Just((Method::Recursive, Unit::Characters)),
        Just((Method::Recursive, Unit::Tokens)),
        Just((Method::Sentences, Unit::Words)),
        Just((Method::Sentences, Unit::Tokens)),
        Just((Method::Words, Unit::Words)),
        Just((Method::Tokens, Unit::Tokens)),
    ];
    (methods, 1usize..40, 0usize..40).prop_map(|((method, unit), size, overlap)| {
        Rule::new(method, Some(size), Some(overlap.min(size - 1)), Some(unit)).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offsets_are_exact_and_nothing_is_lost(
        text in "([a-zA-Zäß狐狸é👩‍👩‍👧 .!?,\n-]|\r\n|[\\PC]){0,300}",
        rule in rules(),
    ) {
        let chunks = chunk(&text, &rule, &count);
        let mut covered = 0;
        for part in &chunks {
            prop_assert_eq!(&text[part.bytes.clone()], part.text);
            let by_characters: String =
                text.chars().skip(part.characters.start).take(part.characters.len()).collect();
            prop_assert_eq!(&by_characters, part.text);
            prop_assert!(!part.text.trim().is_empty() && part.text == part.text.trim());
            if part.bytes.start > covered {
                prop_assert!(text[covered..part.bytes.start].trim().is_empty(), "a gap holds text");
            }
            prop_assert!(part.bytes.end > covered, "a chunk adds something");
            covered = part.bytes.end;
        }
        prop_assert!(text[covered..].trim().is_empty(), "the end is lost");
    }

    #[test]
    fn no_chunk_is_larger_than_the_rule(text in "[a-zäé狐.!? \n]{0,300}", rule in rules()) {
        let measure = measure(&text, rule.unit());
        for part in chunk(&text, &rule, &count) {
            prop_assert!(measure.size_of(part.text).unwrap() <= rule.size(), "{:?}", part.text);
        }
    }

    #[test]
    fn without_method_the_text_is_one_chunk(text in "\\PC{1,50}") {
        let chunks = chunk(&text, &Rule::WHOLE, &count);
        prop_assert_eq!(chunks.len(), usize::from(!text.trim().is_empty()));
    }
}

#[test]
fn windows_overlap_by_what_was_asked() {
    let rule = Rule::new(Method::Words, Some(3), Some(1), None).unwrap();
    let texts: Vec<_> =
        chunk("One, two three; four five. Six", &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(texts, ["One, two three;", "three; four five.", "five. Six"]);
}

#[test]
fn sentences_stay_whole_while_they_fit() {
    let rule = Rule::new(Method::Sentences, Some(5), Some(2), Some(Unit::Words)).unwrap();
    let text = "It rains. I stay here. You go. One two three four five six seven.";
    let texts: Vec<_> = chunk(text, &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(
        texts,
        ["It rains. I stay here.", "You go.", "One two three four five", "six seven."],
        "overlaps are whole sentences that leave room for the next"
    );
}

#[test]
fn a_megabyte_without_a_space_is_cut() {
    let rule = Rule::new(Method::Recursive, Some(256), None, None).unwrap();
    let text = "x".repeat(1 << 20);
    let chunks = chunk(&text, &rule, &|_| 1);
    assert!(chunks.len() > 50 && chunks.iter().all(|part| part.text.len() <= 257 * 64));
}
