//! The splitting methods. Each maps a text and the limits of a chunk to byte ranges in order. The time is linear in the
//! text and the number of chunks, apart from the logarithm of a binary search.

use std::ops::Range;

use crate::{
    ChunkError,
    boundaries::{self, Boundary, Level, STRUCTURE, sentences as sentence_ranges},
    limits::Limits,
    progress::Progress,
};

type Split = Result<Vec<Range<usize>>, ChunkError>;

/// Splits at the largest structure whose parts fit: the more line breaks follow each other, the larger the structure.
pub(crate) fn recursive(text: &str, limits: &Limits<'_>, progress: &Progress<'_>) -> Split {
    let bytes = text.as_bytes();
    let is_break = |at: usize| matches!(bytes.get(at), Some(b'\n' | b'\r'));
    let (mut structure, mut at) = (Vec::new(), 0);
    while let Some(offset) = text[at..].find(['\n', '\r']) {
        let start = at + offset;
        let (mut end, mut breaks): (usize, Level) = (start, 0);
        while is_break(end) {
            progress.step()?;
            end += if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
            breaks = breaks.saturating_add(1);
        }
        let level = STRUCTURE.saturating_add(breaks);
        structure.extend([start, end].map(|offset| Boundary { offset, level }));
        at = end;
    }
    boundaries::split(text, structure, limits, progress)
}

/// Merges as many whole paragraphs as fit. A paragraph that does not fit is split into sentences.
pub(crate) fn paragraphs(text: &str, limits: &Limits<'_>, progress: &Progress<'_>) -> Split {
    let mut parts = Parts::new(text, limits);
    for paragraph in paragraph_ranges(text) {
        progress.step()?;
        if limits.fits(paragraph.start, paragraph.end) {
            parts.push(paragraph);
        } else {
            parts.push_sentences(paragraph, progress)?;
        }
    }
    parts.merge(progress)
}

/// Merges as many whole sentences as fit. A sentence that does not fit is split by units.
pub(crate) fn sentences(text: &str, limits: &Limits<'_>, progress: &Progress<'_>) -> Split {
    let mut parts = Parts::new(text, limits);
    parts.push_sentences(0..text.len(), progress)?;
    parts.merge(progress)
}

/// Splits after every `size` units. Text before the first unit belongs to the first chunk.
pub(crate) fn fixed_windows(text: &str, limits: &Limits<'_>, progress: &Progress<'_>) -> Split {
    let (mut chunks, mut start) = (Vec::new(), 0);
    while start < text.len() {
        progress.step()?;
        let end = limits.furthest_end(text, start);
        chunks.push(start..end);
        if end >= text.len() {
            break;
        }
        let next = limits.unit_start(end).max(start + 1);
        start = text.ceil_char_boundary(next).min(end);
    }
    Ok(chunks)
}

/// The paragraphs of a text: runs of lines between blank lines, each with the blank lines after it.
fn paragraph_ranges(text: &str) -> impl Iterator<Item = Range<usize>> {
    let (mut start, mut line_start, mut blank) = (0, 0, false);
    let paragraph_before = move |line: &str| {
        let is_blank = line.trim().is_empty();
        let ends = blank && !is_blank && line_start > start;
        let paragraph = ends.then(|| std::mem::replace(&mut start, line_start)..line_start);
        (blank, line_start) = (is_blank, line_start + line.len());
        paragraph
    };
    let mut last = 0;
    text.split_inclusive('\n').filter_map(paragraph_before).map(Some).chain([None]).map(move |paragraph| {
        match paragraph {
            Some(paragraph) => {
                last = paragraph.end;
                paragraph
            }
            None => last..text.len(),
        }
    })
}

/// Neighbouring parts of a text that are merged into chunks.
struct Parts<'a> {
    text: &'a str,
    limits: &'a Limits<'a>,
    ranges: Vec<Range<usize>>,
}

impl<'a> Parts<'a> {
    fn new(text: &'a str, limits: &'a Limits<'a>) -> Self {
        Self { text, limits, ranges: Vec::new() }
    }

    /// Adds a piece. White space belongs to the piece before it, so that every other piece has a size.
    fn push(&mut self, piece: Range<usize>) {
        let is_blank = self.text[piece.clone()].trim().is_empty();
        match self.ranges.last_mut().filter(|last| is_blank && last.end == piece.start) {
            Some(last) => last.end = piece.end,
            None => self.ranges.push(piece),
        }
    }

    /// Adds the sentences of a part. A sentence that does not fit is split by units.
    fn push_sentences(&mut self, part: Range<usize>, progress: &Progress<'_>) -> Result<(), ChunkError> {
        let text = self.text;
        for sentence in sentence_ranges(&text[part.clone()]) {
            progress.step()?;
            let (mut start, end) = (part.start + sentence.start, part.start + sentence.end);
            while !self.limits.fits(start, end) {
                progress.step()?;
                let next = self.limits.furthest_end(text, start).min(end);
                if next == end {
                    break;
                }
                self.push(start..next);
                start = next;
            }
            self.push(start..end);
        }
        Ok(())
    }

    /// Merges neighbouring pieces into chunks while they fit. A chunk starts with those last pieces of the previous chunk
    /// that fit the overlap.
    fn merge(self, progress: &Progress<'_>) -> Split {
        let Self { limits, ranges: pieces, .. } = self;
        let mut chunks: Vec<Range<usize>> = Vec::new();
        let (mut first, mut last) = (0, 0);
        while first < pieces.len() {
            progress.step()?;
            let start = pieces[first].start;
            // The pieces up to the end of the previous chunk fit, because they fit together with the pieces before them.
            last = last.max(first);
            while last + 1 < pieces.len() && limits.fits(start, pieces[last + 1].end) {
                progress.step()?;
                last += 1;
            }
            let end = pieces[last].end;
            chunks.push(start..end);
            if last + 1 == pieces.len() {
                break;
            }
            let earliest = limits.earliest_start(end);
            let repeated = &pieces[first + 1..=last];
            first += 1 + repeated.partition_point(|piece| piece.start < earliest);
        }
        Ok(chunks)
    }
}
