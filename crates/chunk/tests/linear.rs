//! The work of every method is linear in the text, whatever the text is. Work is counted in steps and in bytes that the
//! token counter receives, not in seconds.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::cell::Cell;

use embeddery_chunk::{ChunkConfig, ChunkError, Method, STEPS_PER_CHECK, Tokens, Unit, chunk};

/// What a split did.
#[derive(Clone, Copy, Debug)]
struct Work {
    steps: usize,
    counted_calls: usize,
    counted_bytes: usize,
    largest_count: usize,
}

/// A name, and a function that makes a text of a length.
type Text = (&'static str, fn(usize) -> String);

/// Texts that took quadratic time, or could: each is made of a length.
const TEXTS: [Text; 21] = [
    ("line breaks", |n| format!("a{}b", "\n".repeat(n))),
    ("spaces", |n| format!("a{}b", " ".repeat(n))),
    ("rules", |n| "----\n".repeat(n / 5)),
    ("blank lines", |n| "a\n\n\n".repeat(n / 4)),
    ("one letter", |n| "x".repeat(n)),
    ("one-letter words", |n| "x ".repeat(n / 2)),
    ("full stop and brackets", |n| format!("a.{}", ")".repeat(n))),
    ("full stop and spaces", |n| format!("a.{}b", " ".repeat(n))),
    ("full stop, vowel sign and brackets", |n| format!("a.\u{93e}{}", ")".repeat(n))),
    ("full stop, brackets and digits", |n| format!("a.{}{}", ")".repeat(60), "1".repeat(n))),
    ("full stop and vowel signs", |n| "a.\u{93e})".repeat(n / 6)),
    ("full stops", |n| ". ".repeat(n / 2)),
    ("brackets", |n| "(".repeat(n)),
    ("quotes", |n| "> ".repeat(n / 2)),
    ("square brackets", |n| "[".repeat(n)),
    ("stars and underscores", |n| "*a_ ".repeat(n / 4)),
    ("list", |n| (0..n / 20).map(|depth| format!("{}- a\n", " ".repeat(depth % 16))).collect()),
    ("headings", |n| "# a\n".repeat(n / 4)),
    ("ideographs", |n| "狐".repeat(n / 3)),
    ("marks", |n| format!("e{}", "\u{301}".repeat(n / 2))),
    ("joined emoji", |n| "👩\u{200d}".repeat(n / 7)),
];

fn work(text: &str, config: &ChunkConfig, max: Option<usize>) -> Work {
    let (checks, calls, bytes, largest) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |part: &str| {
        calls.set(calls.get() + 1);
        bytes.set(bytes.get() + part.len());
        largest.set(largest.get().max(part.len()));
        part.len().div_ceil(4)
    };
    let stop = || {
        checks.set(checks.get() + 1);
        false
    };
    chunk(text, config, Tokens { count: &count, max }, &stop).unwrap();
    Work {
        steps: checks.get() * STEPS_PER_CHECK,
        counted_calls: calls.get(),
        counted_bytes: bytes.get(),
        largest_count: largest.get(),
    }
}

fn configs() -> Vec<ChunkConfig> {
    let mut configs = vec![ChunkConfig::default().with_content_type(None)];
    for (method, unit) in [
        (Method::Recursive, Unit::Characters),
        (Method::Recursive, Unit::Words),
        (Method::Markdown, Unit::Tokens),
        (Method::Markdown, Unit::Characters),
        (Method::Code, Unit::Tokens),
        (Method::Paragraphs, Unit::Words),
        (Method::Paragraphs, Unit::Tokens),
        (Method::Sentences, Unit::Words),
        (Method::Sentences, Unit::Tokens),
        (Method::Words, Unit::Words),
        (Method::Tokens, Unit::Tokens),
        (Method::FixedSize, Unit::Characters),
    ] {
        let config = ChunkConfig::new(method, Some(16), Some(4), Some(unit)).unwrap();
        configs.push(config.with_content_type(Some("rust")));
    }
    configs
}

#[test]
fn steps_and_counted_bytes_grow_with_the_text() {
    const SMALL: usize = 2_500;
    const GROWTH: usize = 8;
    // A text above a limit is read once more than one below it. Quadratic work would grow 64 times.
    const MAX_GROWTH: usize = 2 * GROWTH;
    for (name, make) in TEXTS {
        let (small, large) = (make(SMALL), make(GROWTH * SMALL));
        for config in configs() {
            for max in [None, Some(8)] {
                let before = work(&small, &config, max);
                let max_steps = |text: &str| 24 * text.len() + 8 * STEPS_PER_CHECK;
                assert!(before.steps <= max_steps(&small), "{name} by {config:?}: {before:?}");
                let after = work(&large, &config, max);
                let at = format!("{name} by {config:?}, max {max:?}: {before:?} {after:?}");
                // A step is at most a few per byte, and a chunk is counted once or twice.
                assert!(after.steps <= max_steps(&large), "{at}");
                assert!(after.counted_bytes <= 6 * large.len() + 1024, "{at}");
                assert!(after.steps <= MAX_GROWTH * before.steps + 8 * STEPS_PER_CHECK, "{at}");
                assert!(after.counted_bytes <= MAX_GROWTH * before.counted_bytes + 4096, "{at}");
                assert!(after.counted_calls <= large.len() + 16, "{at}");
                assert!(after.largest_count <= before.largest_count.max(4096), "{at}");
            }
        }
    }
}

/// The work inside of a library is in no count. Quadratic work takes very long for these texts.
#[test]
fn large_texts_end() {
    const LARGE: usize = 200_000;
    for (_, make) in TEXTS.into_iter().filter(|(name, _)| name.starts_with("full stop")) {
        let text = make(LARGE);
        for method in [Method::Sentences, Method::Recursive] {
            let config = ChunkConfig::new(method, Some(500), Some(0), Some(Unit::Characters)).unwrap();
            assert!(work(&text, &config, None).steps > 0);
        }
    }
}

#[test]
fn every_method_stops_soon_after_it_is_asked() {
    let text = "One letter, x. Two. ".repeat(20_000) + &"x".repeat(100_000);
    for config in configs() {
        for allowed in [0, 1, 10, 50] {
            let (checks, counted) = (Cell::new(0), Cell::new(0));
            let count = |part: &str| {
                counted.set(counted.get() + 1);
                part.len().div_ceil(4)
            };
            let stop = || {
                checks.set(checks.get() + 1);
                checks.get() > allowed
            };
            let stopped = chunk(&text, &config, Tokens { count: &count, max: Some(100) }, &stop);
            assert_eq!(stopped, Err(ChunkError::Stopped), "{config:?}");
            assert_eq!(checks.get(), allowed + 1, "{config:?}");
            assert!(counted.get() <= (allowed + 1) * STEPS_PER_CHECK, "{config:?}");
        }
    }
}
