//! Text in, chunks with exact offsets out. Pure: no clock, no disk, no model; who wants chunks measured in a
//! model's tokens passes a function that counts them.
//!
//! Every unit is one thing, a [`UnitOffsets`]: the sorted byte offsets at which its units begin. It is made once per
//! text; the size of any part is then two binary searches, so that no method ever counts the same text twice.

mod config;
mod headings;
mod language;
mod offsets;
mod split;

use std::ops::Range;

pub use config::{ChunkConfig, Method, RuleError, Unit};
pub use language::Language;
pub use offsets::UnitOffsets;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'t> {
    /// The part itself, without white space around it. Never blank.
    pub text: &'t str,
    /// Where it stands in the text, in bytes.
    pub bytes: Range<usize>,
    /// Where it stands in the text, in characters.
    pub characters: Range<usize>,
    /// The headings of the sections it begins in, outermost first; only [`Method::Markdown`] looks for them.
    pub headings: Vec<String>,
}

/// Cuts `text` by `rule`. `count` says how many tokens a piece of text has; it is asked once per word, and only
/// when the rule measures in tokens.
pub fn chunk<'t>(text: &'t str, rule: &ChunkConfig, count: &dyn Fn(&str) -> usize) -> Vec<Chunk<'t>> {
    let measure = || match rule.unit() {
        Unit::Characters => UnitOffsets::characters(text),
        Unit::Words => UnitOffsets::words(text),
        Unit::Tokens => UnitOffsets::tokens(text, count),
    };
    let ranges = match (rule.method(), rule.language()) {
        (Method::Whole, _) => std::iter::once(0..text.len()).collect(),
        (Method::Code, Some(language)) => split::code(text, &measure(), rule, language),
        (Method::Recursive | Method::Code, _) => split::recursive(text, &measure(), rule),
        (Method::Markdown, _) => split::markdown(text, &measure(), rule),
        (Method::Paragraphs, _) => split::paragraphs(text, &measure(), rule),
        (Method::Sentences, _) => split::sentences(text, &measure(), rule),
        (Method::Words | Method::Tokens | Method::FixedSize, _) => {
            split::fixed_windows(text, &measure(), rule)
        }
    };
    let mut chunks = with_offsets(text, ranges);
    if rule.method() == Method::Markdown {
        let paths = headings::Headings::of(text).path_at(chunks.iter().map(|chunk| chunk.bytes.start));
        for (chunk, path) in chunks.iter_mut().zip(paths) {
            chunk.headings = path;
        }
    }
    chunks
}

/// Trims each range, drops blank ones and ones that add nothing, and counts characters in one walk.
fn with_offsets(text: &str, ranges: Vec<Range<usize>>) -> Vec<Chunk<'_>> {
    let mut chunks: Vec<Chunk<'_>> = Vec::with_capacity(ranges.len());
    // A place and the characters before it; starts only grow, so the walk never goes back.
    let (mut byte, mut character) = (0, 0);
    for range in ranges {
        let part = &text[range.clone()];
        let trimmed = part.trim();
        let start = range.start + (part.len() - part.trim_start().len());
        let bytes = start..start + trimmed.len();
        let repeats = chunks.last().is_some_and(|last| bytes.end <= last.bytes.end);
        if trimmed.is_empty() || repeats {
            continue;
        }
        character += text[byte..start].chars().count();
        byte = start;
        let characters = character..character + trimmed.chars().count();
        chunks.push(Chunk { text: trimmed, bytes, characters, headings: Vec::new() });
    }
    chunks
}
