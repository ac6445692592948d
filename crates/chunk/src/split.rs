//! The methods: from a text and its measure to ranges of bytes, in order, each within the rule's size.

use std::ops::Range;

use text_splitter::{
    ChunkConfig as SplitterConfig, ChunkSizer, CodeSplitter, MarkdownSplitter, TextSplitter,
};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::{ChunkConfig, Language, UnitOffsets};

/// text-splitter asks for the size of many overlapping candidates; each answer is two binary searches.
struct Sizer<'m>(&'m UnitOffsets);

impl ChunkSizer for Sizer<'_> {
    fn size(&self, part: &str) -> usize {
        // A part of another text cannot come; its length errs to the safe side.
        self.0.size_of(part).unwrap_or(part.len())
    }
}

/// A rule's overlap is smaller than its size, which is all that can be wrong with it: `None` does not come.
fn config<'m>(measure: &'m UnitOffsets, rule: &ChunkConfig) -> Option<SplitterConfig<Sizer<'m>>> {
    SplitterConfig::new(rule.size()).with_sizer(Sizer(measure)).with_overlap(rule.overlap()).ok()
}

fn ranges<'t>(parts: impl Iterator<Item = (usize, &'t str)>) -> Vec<Range<usize>> {
    parts.map(|(at, part)| at..at + part.len()).collect()
}

/// Along the text's own structure, the largest that fits.
pub(crate) fn recursive(text: &str, measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    let Some(config) = config(measure, rule) else { return fixed_windows(text, measure, rule) };
    ranges(TextSplitter::new(config).chunk_indices(text))
}

/// Along Markdown's sections and blocks.
pub(crate) fn markdown(text: &str, measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    let Some(config) = config(measure, rule) else { return fixed_windows(text, measure, rule) };
    ranges(MarkdownSplitter::new(config).chunk_indices(text))
}

/// Along a program's functions and statements.
pub(crate) fn code(
    text: &str,
    measure: &UnitOffsets,
    rule: &ChunkConfig,
    language: Language,
) -> Vec<Range<usize>> {
    let splitter = config(measure, rule).map(|config| CodeSplitter::new(language.grammar(), config));
    // A grammar that the parser cannot read is a defect of the build, found by the tests.
    let Some(Ok(splitter)) = splitter else { return recursive(text, measure, rule) };
    ranges(splitter.chunk_indices(text))
}

/// Whole paragraphs, as many as fit; one that is too long by itself is cut into sentences.
pub(crate) fn paragraphs(text: &str, measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for paragraph in blocks(text) {
        if measure.size(paragraph.start, paragraph.end) <= rule.size() {
            pieces.push(paragraph);
        } else {
            pieces.extend(sentence_pieces(text, paragraph, measure, rule));
        }
    }
    merge_pieces(&pieces, measure, rule)
}

/// Whole sentences, as many as fit; one that is too long by itself is cut by units.
pub(crate) fn sentences(text: &str, measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    merge_pieces(&sentence_pieces(text, 0..text.len(), measure, rule), measure, rule)
}

/// After every so many units.
pub(crate) fn fixed_windows(text: &str, measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    split_by_units(measure, 0..text.len(), rule.size(), rule.overlap())
}

/// What stands between blank lines, each with the blank lines after it.
fn blocks(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut start, mut at, mut blank) = (Vec::new(), 0, 0, false);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if blank && !is_blank && at > start {
            found.push(start..at);
            start = at;
        }
        (blank, at) = (is_blank, at + line.len());
    }
    found.push(start..text.len());
    found
}

/// The sentences of a part, the too long ones in pieces.
fn sentence_pieces(
    text: &str,
    part: Range<usize>,
    measure: &UnitOffsets,
    rule: &ChunkConfig,
) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for (at, sentence) in text[part.clone()].split_sentence_bound_indices() {
        let (from, to) = (part.start + at, part.start + at + sentence.len());
        if measure.size(from, to) <= rule.size() {
            pieces.push(from..to);
        } else {
            pieces.extend(split_by_units(measure, from..to, rule.size(), 0));
        }
    }
    pieces
}

/// Neighbouring pieces share a chunk while they fit; a chunk begins with the pieces at the end of the one before
/// that fit the overlap.
fn merge_pieces(pieces: &[Range<usize>], measure: &UnitOffsets, rule: &ChunkConfig) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    while first < pieces.len() {
        let start = pieces[first].start;
        let mut last = first;
        while last + 1 < pieces.len() && measure.size(start, pieces[last + 1].end) <= rule.size() {
            last += 1;
        }
        chunks.push(start..pieces[last].end);
        let mut next = last + 1;
        while next - 1 > first && measure.size(pieces[next - 1].start, pieces[last].end) <= rule.overlap() {
            next -= 1;
        }
        first = next;
    }
    chunks
}

/// Cuts a range before units: the text before its first unit belongs to the first chunk.
fn split_by_units(
    measure: &UnitOffsets,
    range: Range<usize>,
    size: usize,
    overlap: usize,
) -> Vec<Range<usize>> {
    let starts = measure.starts();
    let inside = &starts[starts.partition_point(|&start| start < range.start)
        ..starts.partition_point(|&start| start < range.end)];
    if inside.is_empty() {
        return vec![range];
    }
    let mut chunks = Vec::with_capacity(inside.len() / (size - overlap) + 1);
    let mut first = 0;
    loop {
        let from = if first == 0 { range.start } else { inside[first] };
        let Some(&to) = inside.get(first + size) else {
            chunks.push(from..range.end);
            return chunks;
        };
        chunks.push(from..to);
        first += size - overlap;
    }
}
