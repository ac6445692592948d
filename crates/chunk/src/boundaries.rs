//! Where a text may be split, and greedy splitting at the strongest of these boundaries.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
};

use unicode_segmentation::UnicodeSegmentation as _;

use crate::{ChunkError, limits::Limits, progress::Progress, words};

/// The strength of a boundary. A chunk ends at the strongest boundary that it reaches.
pub(crate) type Level = u32;

/// Between characters as a reader sees them (grapheme clusters).
const GRAPHEME: Level = 1;
/// Between words.
const WORD: Level = 2;
/// Between sentences.
const SENTENCE: Level = 3;
/// The first level of the structure of a text: lines, Markdown blocks, syntax nodes.
pub(crate) const STRUCTURE: Level = 4;

/// A place where a text may be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) offset: usize,
    pub(crate) level: Level,
}

/// Splits at boundaries: `structure` has the places that the structure of the text offers, in any order. Text between
/// two of them that does not fit is split between sentences, words and characters.
///
/// A chunk ends at the last of the strongest boundaries that it can reach. The next chunk begins at the first boundary
/// of the same strength within the overlap.
pub(crate) fn split(
    text: &str,
    structure: Vec<Boundary>,
    limits: &Limits<'_>,
    progress: &Progress<'_>,
) -> Result<Vec<Range<usize>>, ChunkError> {
    let boundaries = refine(text, sorted(structure), limits, progress)?;
    let mut by_level: HashMap<Level, Vec<usize>> = HashMap::new();
    for boundary in &boundaries {
        by_level.entry(boundary.level).or_default().push(boundary.offset);
    }
    let mut reachable = Reachable { boundaries: &boundaries, next: 0, strongest: VecDeque::new() };
    let (mut chunks, mut start) = (Vec::new(), 0);
    while start < text.len() {
        progress.step()?;
        let furthest = limits.furthest_end(text, start);
        if furthest >= text.len() {
            chunks.push(start..text.len());
            break;
        }
        let last = reachable.last_strongest(start, furthest, progress)?;
        let end = last.map_or(furthest, |boundary| boundary.offset);
        chunks.push(start..end);
        let earliest = limits.earliest_start(end).max(start + 1);
        let next = match last.and_then(|boundary| by_level.get(&boundary.level)) {
            Some(offsets) => offsets.get(offsets.partition_point(|&offset| offset < earliest)).copied(),
            None => Some(text.ceil_char_boundary(earliest)),
        };
        start = next.map_or(end, |next| next.min(end));
    }
    Ok(chunks)
}

/// Sorts boundaries by offset. Of several at one offset the strongest is kept.
fn sorted(mut boundaries: Vec<Boundary>) -> Vec<Boundary> {
    boundaries.sort_unstable_by_key(|boundary| (boundary.offset, std::cmp::Reverse(boundary.level)));
    boundaries.dedup_by_key(|boundary| boundary.offset);
    boundaries
}

/// Adds the boundaries of sentences, words and graphemes where the text between two boundaries does not fit.
fn refine(
    text: &str,
    structure: Vec<Boundary>,
    limits: &Limits<'_>,
    progress: &Progress<'_>,
) -> Result<Vec<Boundary>, ChunkError> {
    let mut refined = Vec::with_capacity(structure.len() + 1);
    let mut start = 0;
    let end_of_text = Boundary { offset: text.len(), level: STRUCTURE };
    for boundary in structure.into_iter().chain([end_of_text]) {
        progress.step()?;
        let gap = start..boundary.offset;
        if !limits.fits(gap.start, gap.end) {
            add_sentences(text, gap, limits, &mut refined, progress)?;
        }
        start = boundary.offset;
        refined.push(boundary);
    }
    Ok(refined)
}

fn add_sentences(
    text: &str,
    gap: Range<usize>,
    limits: &Limits<'_>,
    refined: &mut Vec<Boundary>,
    progress: &Progress<'_>,
) -> Result<(), ChunkError> {
    for sentence in sentences(&text[gap.clone()]) {
        progress.step()?;
        let (start, end) = (gap.start + sentence.start, gap.start + sentence.end);
        if !limits.fits(start, end) {
            for word in words::ranges(&text[start..end]) {
                progress.step()?;
                let (word_start, word_end) = (start + word.start, start + word.end);
                if !limits.fits(word_start, word_end) {
                    for (at, _) in text[word_start..word_end].grapheme_indices(true) {
                        progress.step()?;
                        refined.push(Boundary { offset: word_start + at, level: GRAPHEME });
                    }
                }
                refined.push(Boundary { offset: word_end, level: WORD });
            }
        }
        refined.push(Boundary { offset: end, level: SENTENCE });
    }
    Ok(())
}

/// The boundaries within reach of a chunk. The starts and ends of consecutive chunks ascend, so every boundary enters and
/// leaves once.
struct Reachable<'b> {
    boundaries: &'b [Boundary],
    /// The first boundary that no chunk has reached.
    next: usize,
    /// Indices of the boundaries that no later reached boundary equals or exceeds: their levels descend.
    strongest: VecDeque<usize>,
}

impl Reachable<'_> {
    /// The last of the strongest boundaries after `start` and not after `furthest`.
    fn last_strongest(
        &mut self,
        start: usize,
        furthest: usize,
        progress: &Progress<'_>,
    ) -> Result<Option<Boundary>, ChunkError> {
        while let Some(boundary) = self.boundaries.get(self.next).filter(|next| next.offset <= furthest) {
            progress.step()?;
            while self.strongest.back().is_some_and(|&last| self.boundaries[last].level <= boundary.level) {
                self.strongest.pop_back();
            }
            self.strongest.push_back(self.next);
            self.next += 1;
        }
        while self.strongest.front().is_some_and(|&first| self.boundaries[first].offset <= start) {
            self.strongest.pop_front();
        }
        Ok(self.strongest.front().map(|&first| self.boundaries[first]))
    }
}

/// Maximum characters after a full stop that UAX #29 looks through for a lower-case letter. unicode-segmentation searches
/// the rest of the text again at each of them.
const MAX_AFTER_FULL_STOP: usize = 64;

/// The sentences of a text by UAX #29. White space or punctuation after a full stop that is longer than
/// [`MAX_AFTER_FULL_STOP`] ends a sentence in any case.
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut after_full_stop = None;
    let mut part_start = 0;
    let cut = move |(offset, character): (usize, char)| {
        let is_cut = after_full_stop.is_some_and(|count| count >= MAX_AFTER_FULL_STOP);
        after_full_stop = match character {
            '.' | '\u{2024}' | '\u{FE52}' | '\u{FF0E}' => Some(0),
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => None,
            _ if character.is_alphanumeric() || is_cut => None,
            _ => after_full_stop.map(|count| count + 1),
        };
        is_cut.then_some(offset)
    };
    text.char_indices().filter_map(cut).chain([text.len()]).flat_map(move |end| {
        let part = std::mem::replace(&mut part_start, end)..end;
        let base = part.start;
        text[part].split_sentence_bound_indices().map(move |(offset, sentence)| {
            let start = base + offset;
            start..start + sentence.len()
        })
    })
}
