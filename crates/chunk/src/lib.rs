#![doc = include_str!("../README.md")]

mod config;
mod headings;
mod language;
mod offsets;
mod split;

use std::ops::Range;

pub use config::{ChunkConfig, ChunkConfigError, Method, Unit};
pub use language::Language;
pub use offsets::UnitOffsets;

/// A part of a text with its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextChunk<'t> {
    /// The part without surrounding white space. Never blank.
    pub text: &'t str,
    /// Byte offsets in the text.
    pub bytes: Range<usize>,
    /// Character offsets in the text.
    pub characters: Range<usize>,
    /// Headings of the sections that contain the chunk's first byte, outermost first. Only [`Method::Markdown`]
    /// fills this field.
    pub headings: Vec<String>,
}

/// Splits `text` as `config` demands. `count` returns the number of tokens of a piece of text; it is called once per
/// distinct word, and only when the unit is [`Unit::Tokens`].
pub fn chunk<'t>(text: &'t str, config: &ChunkConfig, count: &dyn Fn(&str) -> usize) -> Vec<TextChunk<'t>> {
    let offsets = || match config.unit() {
        Unit::Characters => UnitOffsets::characters(text),
        Unit::Words => UnitOffsets::words(text),
        Unit::Tokens => UnitOffsets::tokens(text, count),
    };
    let ranges = match (config.method(), config.language()) {
        (Method::Whole, _) => std::iter::once(0..text.len()).collect(),
        (Method::Code, Some(language)) => split::code(text, &offsets(), config, language),
        (Method::Recursive | Method::Code, _) => split::recursive(text, &offsets(), config),
        (Method::Markdown, _) => split::markdown(text, &offsets(), config),
        (Method::Paragraphs, _) => split::paragraphs(text, &offsets(), config),
        (Method::Sentences, _) => split::sentences(text, &offsets(), config),
        (Method::Words | Method::Tokens | Method::FixedSize, _) => {
            split::fixed_windows(text, &offsets(), config)
        }
    };
    let mut chunks = with_offsets(text, ranges);
    if config.method() == Method::Markdown {
        let starts = chunks.iter().map(|chunk| chunk.bytes.start);
        let paths = headings::Headings::parse(text).path_at(starts);
        for (chunk, path) in chunks.iter_mut().zip(paths) {
            chunk.headings = path;
        }
    }
    chunks
}

/// Trims each range, drops blank ranges and ranges that add no text, and computes character offsets in one pass.
fn with_offsets(text: &str, ranges: Vec<Range<usize>>) -> Vec<TextChunk<'_>> {
    let mut chunks: Vec<TextChunk<'_>> = Vec::with_capacity(ranges.len());
    // A byte offset and its character offset. Range starts ascend, so the pass never goes back.
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
        chunks.push(TextChunk { text: trimmed, bytes, characters, headings: Vec::new() });
    }
    chunks
}
