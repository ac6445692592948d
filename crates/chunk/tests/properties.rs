//! What holds for every text and every rule, and what the measured traps of real tokenizers look like.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use embeddery_chunk::{ChunkConfig, Method, Unit, UnitOffsets, chunk};
use proptest::prelude::*;

/// One token for every four bytes of a word, two special ones.
fn count(text: &str) -> usize {
    2 + text.split_whitespace().map(|word| word.len().div_ceil(4)).sum::<usize>()
}

fn measure(text: &str, unit: Unit) -> UnitOffsets {
    match unit {
        Unit::Characters => UnitOffsets::characters(text),
        Unit::Words => UnitOffsets::words(text),
        Unit::Tokens => UnitOffsets::tokens(text, &count),
    }
}

fn rules() -> impl Strategy<Value = ChunkConfig> {
    let methods = prop_oneof![
        Just((Method::Recursive, Unit::Characters)),
        Just((Method::Recursive, Unit::Tokens)),
        Just((Method::Markdown, Unit::Characters)),
        Just((Method::Markdown, Unit::Tokens)),
        Just((Method::Code, Unit::Tokens)),
        Just((Method::Paragraphs, Unit::Words)),
        Just((Method::Paragraphs, Unit::Tokens)),
        Just((Method::FixedSize, Unit::Characters)),
        Just((Method::FixedSize, Unit::Words)),
        Just((Method::Sentences, Unit::Words)),
        Just((Method::Sentences, Unit::Tokens)),
        Just((Method::Words, Unit::Words)),
        Just((Method::Tokens, Unit::Tokens)),
    ];
    let content_types =
        prop::sample::select(vec![None, Some("rust"), Some("python"), Some("tsx"), Some("go")]);
    (methods, 1usize..40, 0usize..40, content_types).prop_map(
        |((method, unit), size, overlap, content_type)| {
            let rule = ChunkConfig::new(method, Some(size), Some(overlap.min(size - 1)), Some(unit)).unwrap();
            rule.with_content_type(content_type)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offsets_are_exact_and_nothing_is_lost(
        text in "([a-zA-Zäß狐狸é👩‍👩‍👧 .!?,\n-]|\r\n|\n\n|\n#+ |[(){}*`|>]|[\\PC]){0,300}",
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
    fn no_chunk_is_larger_than_the_rule(text in "([a-zäé狐.!? \n(){}#*`]|\n\n|\n# ){0,300}", rule in rules()) {
        let measure = measure(&text, rule.unit());
        for part in chunk(&text, &rule, &count) {
            prop_assert!(measure.size_of(part.text).unwrap() <= rule.size(), "{:?}", part.text);
        }
    }

    #[test]
    fn without_method_the_text_is_one_chunk(text in "\\PC{1,50}") {
        let chunks = chunk(&text, &ChunkConfig::WHOLE, &count);
        prop_assert_eq!(chunks.len(), usize::from(!text.trim().is_empty()));
    }
}

#[test]
fn windows_overlap_by_what_was_asked() {
    let rule = ChunkConfig::new(Method::Words, Some(3), Some(1), None).unwrap();
    let texts: Vec<_> =
        chunk("One, two three; four five. Six", &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(texts, ["One, two three;", "three; four five.", "five. Six"]);
}

#[test]
fn sentences_stay_whole_while_they_fit() {
    let rule = ChunkConfig::new(Method::Sentences, Some(5), Some(2), Some(Unit::Words)).unwrap();
    let text = "It rains. I stay here. You go. One two three four five six seven.";
    let texts: Vec<_> = chunk(text, &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(
        texts,
        ["It rains. I stay here.", "You go.", "One two three four five", "six seven."],
        "overlaps are whole sentences that leave room for the next"
    );
}

#[test]
fn a_text_without_a_space_is_cut() {
    let rule = ChunkConfig::new(Method::Recursive, Some(256), None, None).unwrap();
    let text = "x".repeat(1 << 17);
    let chunks = chunk(&text, &rule, &|_| 1);
    assert!(chunks.len() > 7 && chunks.iter().all(|part| part.text.len() <= 257 * 64));
}

#[test]
fn paragraphs_stay_whole_while_they_fit() {
    let rule = ChunkConfig::new(Method::Paragraphs, Some(6), Some(2), Some(Unit::Words)).unwrap();
    let text = "One two.\nThree.\n\nFour five.\n \n\nSix seven. Eight nine ten eleven. Twelve thirteen.";
    let texts: Vec<_> = chunk(text, &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(
        texts,
        [
            "One two.\nThree.\n\nFour five.",
            "Four five.\n \n\nSix seven.",
            "Six seven. Eight nine ten eleven.",
            "Twelve thirteen."
        ],
        "a paragraph that is too long is cut into sentences"
    );
}

#[test]
fn markdown_is_cut_between_sections_and_knows_its_headings() {
    let rule = ChunkConfig::new(Method::Markdown, Some(8), Some(0), Some(Unit::Words)).unwrap();
    let text =
        "# Guide\n\nFirst words of it.\n\n## Setup\n\nInstall it. Then run it twice.\n\n## Use\n\nAsk.";
    let found = chunk(text, &rule, &count);
    let seen: Vec<_> = found.iter().map(|part| (part.text, part.headings.join(" > "))).collect();
    assert_eq!(
        seen,
        [
            ("# Guide\n\nFirst words of it.", "Guide".to_owned()),
            ("## Setup\n\nInstall it. Then run it twice.", "Guide > Setup".to_owned()),
            ("## Use\n\nAsk.", "Guide > Use".to_owned()),
        ]
    );
}

#[test]
fn code_is_cut_between_functions_of_every_language() {
    for (language, text) in [
        ("text/x-rust", "fn one() {\n    a(1, 2);\n}\n\nfn two() {\n    b(3, 4);\n}\n"),
        ("text/x-python", "def one():\n    a(1, 2)\n\n\ndef two():\n    b(3, 4)\n"),
        ("text/javascript", "function one() {\n  a(1, 2);\n}\n\nfunction two() {\n  b(3, 4);\n}\n"),
        (
            "application/typescript",
            "function one(): void {\n  a(1);\n}\n\nfunction two(): void {\n  b(3);\n}\n",
        ),
        ("text/x-go", "func one() {\n\ta(1, 2)\n}\n\nfunc two() {\n\tb(3, 4)\n}\n"),
        ("text/x-java", "class One {\n  void a() {}\n}\n\nclass Two {\n  void b() {}\n}\n"),
    ] {
        let rule = ChunkConfig::new(Method::Code, Some(text.len() * 2 / 3), Some(0), Some(Unit::Characters));
        let rule = rule.unwrap().with_content_type(Some(language));
        let parts: Vec<_> = chunk(text, &rule, &count).iter().map(|part| part.text).collect();
        assert_eq!(parts.len(), 2, "{language}: {parts:?}");
        assert!(parts[0].contains("ne") && parts[1].contains("wo"), "{language}: {parts:?}");
    }
}

#[test]
fn fixed_size_cuts_whatever_stands_there() {
    let rule = ChunkConfig::new(Method::FixedSize, Some(4), Some(1), None).unwrap();
    let texts: Vec<_> = chunk("abcdefghij", &rule, &count).iter().map(|part| part.text).collect();
    assert_eq!(texts, ["abcd", "defg", "ghij"]);
}
