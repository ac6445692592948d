//! The methods: from a text and its measure to ranges of bytes, in order, each within the rule's size.

use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::{Measure, Rule};

/// text-splitter asks for the size of many overlapping candidates; each answer is two binary searches.
struct Sizer<'m>(&'m Measure);

impl ChunkSizer for Sizer<'_> {
    fn size(&self, part: &str) -> usize {
        // A part of another text cannot come; its length errs to the safe side.
        self.0.size_of(part).unwrap_or(part.len())
    }
}

/// Along the text's own structure, the largest that fits.
pub(crate) fn recursive(text: &str, measure: &Measure, rule: &Rule) -> Vec<Range<usize>> {
    let config = ChunkConfig::new(rule.size()).with_sizer(Sizer(measure));
    // A rule's overlap is smaller than its size, which is all that can be wrong here.
    let Ok(config) = config.with_overlap(rule.overlap()) else { return windows(text, measure, rule) };
    TextSplitter::new(config).chunk_indices(text).map(|(at, part)| at..at + part.len()).collect()
}

/// Whole sentences, as many as fit; one that is too long by itself is cut by units.
pub(crate) fn sentences(text: &str, measure: &Measure, rule: &Rule) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for (at, sentence) in text.split_sentence_bound_indices() {
        let (from, to) = (at, at + sentence.len());
        if measure.size(from, to) <= rule.size() {
            pieces.push(from..to);
        } else {
            pieces.extend(cut(measure, from..to, rule.size(), 0));
        }
    }
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    while first < pieces.len() {
        let start = pieces[first].start;
        let mut last = first;
        while last + 1 < pieces.len() && measure.size(start, pieces[last + 1].end) <= rule.size() {
            last += 1;
        }
        chunks.push(start..pieces[last].end);
        // The next chunk begins with the sentences at the end of this one that fit the overlap.
        let mut next = last + 1;
        while next - 1 > first && measure.size(pieces[next - 1].start, pieces[last].end) <= rule.overlap() {
            next -= 1;
        }
        first = next;
    }
    chunks
}

/// After every so many units.
pub(crate) fn windows(text: &str, measure: &Measure, rule: &Rule) -> Vec<Range<usize>> {
    cut(measure, 0..text.len(), rule.size(), rule.overlap())
}

/// Cuts a range before units: the text before its first unit belongs to the first chunk.
fn cut(measure: &Measure, range: Range<usize>, size: usize, overlap: usize) -> Vec<Range<usize>> {
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
