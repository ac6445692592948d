//! Properties that hold for every text and every configuration, and examples for each method.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use embeddery_chunk::{ChunkConfig, ChunkError, Method, TextChunk, Tokens, Unit, UnitOffsets};
use proptest::prelude::*;

/// One token for every four bytes of a word.
fn count(text: &str) -> usize {
    text.split_whitespace().map(|word| word.len().div_ceil(4)).sum::<usize>()
}

/// Splits for a model without a maximum.
fn chunk<'t>(text: &'t str, config: &ChunkConfig, count: &dyn Fn(&str) -> usize) -> Vec<TextChunk<'t>> {
    embeddery_chunk::chunk(text, config, Tokens { count, max: None }, &|| false).unwrap()
}

fn unit_offsets(text: &str, unit: Unit) -> UnitOffsets {
    match unit {
        Unit::Characters => UnitOffsets::characters(text),
        Unit::Words => UnitOffsets::words(text),
        Unit::Tokens => UnitOffsets::tokens(text, &count),
    }
}

fn configs() -> impl Strategy<Value = ChunkConfig> {
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
            let config =
                ChunkConfig::new(method, Some(size), Some(overlap.min(size - 1)), Some(unit)).unwrap();
            config.with_content_type(content_type)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offsets_are_exact_and_nothing_is_lost(
        text in "([a-zA-Zäß狐狸é👩‍👩‍👧 .!?,\n-]|\r\n|\n\n|\n#+ |[(){}*`|>]|[\\PC]){0,300}",
        config in configs(),
    ) {
        let chunks = chunk(&text, &config, &count);
        let mut covered = 0;
        for part in &chunks {
            prop_assert_eq!(&text[part.bytes.clone()], part.text);
            let by_characters: String =
                text.chars().skip(part.characters.start).take(part.characters.len()).collect();
            prop_assert_eq!(&by_characters, part.text);
            prop_assert!(!part.text.trim().is_empty() && part.text == part.text.trim());
            if part.bytes.start > covered {
                prop_assert!(text[covered..part.bytes.start].trim().is_empty(), "a gap contains text");
            }
            prop_assert!(part.bytes.end > covered, "a chunk adds text");
            covered = part.bytes.end;
        }
        prop_assert!(text[covered..].trim().is_empty(), "text is missing at the end");
    }

    #[test]
    fn no_chunk_exceeds_the_configured_size(text in "([a-zäé狐.!? \n(){}#*`]|\n\n|\n# ){0,300}", config in configs()) {
        let offsets = unit_offsets(&text, config.unit());
        for part in chunk(&text, &config, &count) {
            let one_character = part.text.chars().count() == 1;
            let size = offsets.size_of_slice(part.text).unwrap();
            prop_assert!(size <= config.size() || one_character, "{:?}", part.text);
        }
    }

    #[test]
    fn without_method_the_text_is_one_chunk(text in "\\PC{1,50}") {
        let chunks = chunk(&text, &ChunkConfig::WHOLE, &count);
        prop_assert_eq!(chunks.len(), usize::from(!text.trim().is_empty()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_chunk_exceeds_what_the_model_reads(
        text in "([a-zäé狐.!? \n(){}#*`|=-]|\n\n|\n# |[\\PC]){0,300}",
        config in configs(),
        max in 4usize..40,
    ) {
        // Words that are together have more tokens than each alone.
        let merging = |text: &str| count(text) + text.split_whitespace().count() / 2;
        let tokens = Tokens { count: &merging, max: Some(max) };
        for part in embeddery_chunk::chunk(&text, &config, tokens, &|| false).unwrap() {
            let allowed = if config.unit() == Unit::Tokens { max.min(config.size()) } else { max };
            let one_character = part.text.chars().count() == 1;
            prop_assert!(merging(part.text) <= allowed || one_character, "{:?}", part.text);
        }
    }
}

#[test]
fn text_that_must_stay_whole_is_refused_above_the_maximum() {
    let tokens = Tokens { count: &count, max: Some(3) };
    let split = |text| embeddery_chunk::chunk(text, &ChunkConfig::WHOLE, tokens, &|| false);
    assert_eq!(split("one two six").unwrap().len(), 1);
    assert_eq!(split("one two six ten").unwrap_err(), ChunkError::TooLong { tokens: 4, max: 3 });
    let long = "one ".repeat(100_000);
    assert_eq!(split(&long).unwrap_err(), ChunkError::TooLong { tokens: 100_000, max: 3 });
}

#[test]
fn a_byte_order_mark_belongs_to_no_chunk() {
    let text = "\u{FEFF}# Title\n\nWords of it.";
    for method in Method::ALL {
        let config = ChunkConfig::new(method, None, None, None).unwrap();
        let chunks = chunk(text, &config, &count);
        assert_eq!((chunks[0].text, chunks[0].bytes.start, chunks[0].characters.start), (&text[3..], 3, 1));
        if method == Method::Markdown {
            assert_eq!(chunks[0].headings, ["Title"]);
        }
        assert!(chunk("\u{FEFF} \n", &config, &count).is_empty());
    }
}

#[test]
fn text_without_words_is_split() {
    let config = ChunkConfig::new(Method::Words, Some(10), Some(0), None).unwrap();
    for text in ["😀".repeat(2000), "- ".repeat(2000), "=".repeat(2000), "| - | - |\n".repeat(200)] {
        let chunks = chunk(&text, &config, &count);
        assert!(chunks.len() > 1 && chunks.iter().all(|part| part.text.len() <= 11 * 64 * 2), "{text}");
    }
}

#[test]
fn windows_overlap_by_the_configured_overlap() {
    let config = ChunkConfig::new(Method::Words, Some(3), Some(1), None).unwrap();
    let texts: Vec<_> =
        chunk("One, two three; four five. Six", &config, &count).iter().map(|part| part.text).collect();
    assert_eq!(texts, ["One, two three;", "three; four five.", "five. Six"]);
}

#[test]
fn sentences_stay_whole_while_they_fit() {
    let config = ChunkConfig::new(Method::Sentences, Some(5), Some(2), Some(Unit::Words)).unwrap();
    let text = "It rains. I stay here. You go. One two three four five six seven.";
    let texts: Vec<_> = chunk(text, &config, &count).iter().map(|part| part.text).collect();
    assert_eq!(
        texts,
        ["It rains. I stay here.", "You go.", "One two three four five", "six seven."],
        "overlaps are whole sentences that leave space for the next one"
    );
}

#[test]
fn a_text_without_spaces_is_split() {
    let config = ChunkConfig::new(Method::Recursive, Some(256), None, None).unwrap();
    let text = "x".repeat(1 << 17);
    let chunks = chunk(&text, &config, &|_| 1);
    assert!(chunks.len() > 7 && chunks.iter().all(|part| part.text.len() <= 257 * 64));
}

#[test]
fn paragraphs_stay_whole_while_they_fit() {
    let config = ChunkConfig::new(Method::Paragraphs, Some(6), Some(2), Some(Unit::Words)).unwrap();
    let text = "One two.\nThree.\n\nFour five.\n \n\nSix seven. Eight nine ten eleven. Twelve thirteen.";
    let texts: Vec<_> = chunk(text, &config, &count).iter().map(|part| part.text).collect();
    assert_eq!(
        texts,
        [
            "One two.\nThree.\n\nFour five.",
            "Four five.\n \n\nSix seven.",
            "Six seven. Eight nine ten eleven.",
            "Twelve thirteen."
        ],
        "a paragraph that exceeds the size is split into sentences"
    );
}

#[test]
fn markdown_is_split_between_sections_and_carries_headings() {
    let config = ChunkConfig::new(Method::Markdown, Some(8), Some(0), Some(Unit::Words)).unwrap();
    let text =
        "# Guide\n\nFirst words of it.\n\n## Setup\n\nInstall it. Then run it twice.\n\n## Use\n\nAsk.";
    let chunks = chunk(text, &config, &count);
    let sections: Vec<_> = chunks.iter().map(|part| (part.text, part.headings.join(" > "))).collect();
    assert_eq!(
        sections,
        [
            ("# Guide\n\nFirst words of it.", "Guide".to_owned()),
            ("## Setup\n\nInstall it. Then run it twice.", "Guide > Setup".to_owned()),
            ("## Use\n\nAsk.", "Guide > Use".to_owned()),
        ]
    );
}

#[test]
fn code_is_split_between_functions_in_every_language() {
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
        let config =
            ChunkConfig::new(Method::Code, Some(text.len() * 2 / 3), Some(0), Some(Unit::Characters));
        let config = config.unwrap().with_content_type(Some(language));
        let parts: Vec<_> = chunk(text, &config, &count).iter().map(|part| part.text).collect();
        assert_eq!(parts.len(), 2, "{language}: {parts:?}");
        assert!(parts[0].contains("ne") && parts[1].contains("wo"), "{language}: {parts:?}");
    }
}

#[test]
fn fixed_size_ignores_structure() {
    let config = ChunkConfig::new(Method::FixedSize, Some(4), Some(1), None).unwrap();
    let texts: Vec<_> = chunk("abcdefghij", &config, &count).iter().map(|part| part.text).collect();
    assert_eq!(texts, ["abcd", "defg", "ghij"]);
}
