//! The splitting methods. Each maps a text and its unit offsets to byte ranges in order, none larger than the
//! configured size.

use std::ops::Range;

use text_splitter::{
    ChunkConfig as SplitterConfig, ChunkSizer, CodeSplitter, MarkdownSplitter, TextSplitter,
};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::{ChunkConfig, Language, UnitOffsets};

/// Sizes for text-splitter, which measures many overlapping candidates. Each measurement is two binary searches.
struct OffsetSizer<'m>(&'m UnitOffsets);

impl ChunkSizer for OffsetSizer<'_> {
    fn size(&self, part: &str) -> usize {
        // text-splitter passes slices of its own text only. The byte length is a safe upper bound otherwise.
        self.0.size_of_slice(part).unwrap_or(part.len())
    }
}

/// The configuration for text-splitter. text-splitter rejects only an overlap that is not smaller than the size, and
/// [`ChunkConfig`] excludes that, so the result is never `None`.
fn splitter_config<'m>(
    offsets: &'m UnitOffsets,
    config: &ChunkConfig,
) -> Option<SplitterConfig<OffsetSizer<'m>>> {
    SplitterConfig::new(config.size()).with_sizer(OffsetSizer(offsets)).with_overlap(config.overlap()).ok()
}

fn ranges<'t>(parts: impl Iterator<Item = (usize, &'t str)>) -> Vec<Range<usize>> {
    parts.map(|(start, part)| start..start + part.len()).collect()
}

/// Splits at the largest structure whose parts fit.
pub(crate) fn recursive(text: &str, offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    let Some(splitter) = splitter_config(offsets, config) else {
        return fixed_windows(text, offsets, config);
    };
    ranges(TextSplitter::new(splitter).chunk_indices(text))
}

/// Splits between Markdown sections and blocks.
pub(crate) fn markdown(text: &str, offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    let Some(splitter) = splitter_config(offsets, config) else {
        return fixed_windows(text, offsets, config);
    };
    ranges(MarkdownSplitter::new(splitter).chunk_indices(text))
}

/// Splits between functions and statements.
pub(crate) fn code(
    text: &str,
    offsets: &UnitOffsets,
    config: &ChunkConfig,
    language: Language,
) -> Vec<Range<usize>> {
    let splitter =
        splitter_config(offsets, config).map(|splitter| CodeSplitter::new(language.grammar(), splitter));
    // The parser rejects a grammar only if the build combines incompatible versions; a test covers every language.
    let Some(Ok(splitter)) = splitter else { return recursive(text, offsets, config) };
    ranges(splitter.chunk_indices(text))
}

/// Merges as many whole paragraphs as fit. A paragraph that exceeds the size is split into sentences.
pub(crate) fn paragraphs(text: &str, offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for paragraph in paragraph_ranges(text) {
        if offsets.size(paragraph.start, paragraph.end) <= config.size() {
            pieces.push(paragraph);
        } else {
            pieces.extend(sentence_pieces(text, paragraph, offsets, config));
        }
    }
    merge_pieces(&pieces, offsets, config)
}

/// Merges as many whole sentences as fit. A sentence that exceeds the size is split by units.
pub(crate) fn sentences(text: &str, offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    merge_pieces(&sentence_pieces(text, 0..text.len(), offsets, config), offsets, config)
}

/// Splits after every `size` units.
pub(crate) fn fixed_windows(text: &str, offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    split_by_units(offsets, 0..text.len(), config.size(), config.overlap())
}

/// The paragraphs of a text: runs of lines between blank lines, each with the blank lines after it.
fn paragraph_ranges(text: &str) -> Vec<Range<usize>> {
    let (mut paragraphs, mut start, mut line_start, mut blank) = (Vec::new(), 0, 0, false);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if blank && !is_blank && line_start > start {
            paragraphs.push(start..line_start);
            start = line_start;
        }
        (blank, line_start) = (is_blank, line_start + line.len());
    }
    paragraphs.push(start..text.len());
    paragraphs
}

/// The sentences of a part. A sentence that exceeds the size is split by units.
fn sentence_pieces(
    text: &str,
    part: Range<usize>,
    offsets: &UnitOffsets,
    config: &ChunkConfig,
) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for (offset, sentence) in text[part.clone()].split_sentence_bound_indices() {
        let start = part.start + offset;
        let end = start + sentence.len();
        if offsets.size(start, end) <= config.size() {
            pieces.push(start..end);
        } else {
            pieces.extend(split_by_units(offsets, start..end, config.size(), 0));
        }
    }
    pieces
}

/// Merges neighbouring pieces into chunks while they fit. A chunk starts with those last pieces of the previous chunk
/// that fit the overlap.
fn merge_pieces(pieces: &[Range<usize>], offsets: &UnitOffsets, config: &ChunkConfig) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    while first < pieces.len() {
        let start = pieces[first].start;
        let mut last = first;
        while last + 1 < pieces.len() && offsets.size(start, pieces[last + 1].end) <= config.size() {
            last += 1;
        }
        chunks.push(start..pieces[last].end);
        let mut next = last + 1;
        while next - 1 > first && offsets.size(pieces[next - 1].start, pieces[last].end) <= config.overlap() {
            next -= 1;
        }
        first = next;
    }
    chunks
}

/// Splits a range at unit starts. Text before the first unit belongs to the first chunk.
fn split_by_units(
    offsets: &UnitOffsets,
    range: Range<usize>,
    size: usize,
    overlap: usize,
) -> Vec<Range<usize>> {
    let starts = offsets.starts();
    let inside = &starts[starts.partition_point(|&start| start < range.start)
        ..starts.partition_point(|&start| start < range.end)];
    if inside.is_empty() {
        return vec![range];
    }
    let mut chunks = Vec::with_capacity(inside.len() / (size - overlap) + 1);
    let mut first = 0;
    loop {
        let start = if first == 0 { range.start } else { inside[first] };
        let Some(&end) = inside.get(first + size) else {
            chunks.push(start..range.end);
            return chunks;
        };
        chunks.push(start..end);
        first += size - overlap;
    }
}
