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

/// Maximum length of a sentence. It bounds the work for one sentence, because only the steps between sentences can stop.
const MAX_SENTENCE_BYTES: usize = 64 * 1024;

/// Maximum characters after a full stop that UAX #29 looks through for a lower-case letter. unicode-segmentation searches
/// them again at each bracket and space after the full stop.
const MAX_AFTER_FULL_STOP: usize = 64;

/// Maximum bytes after a place that decide whether a sentence ends there.
const LOOK_AHEAD_BYTES: usize = 4 * MAX_AFTER_FULL_STOP;

/// The sentences of a text by UAX #29, except that
/// - [`MAX_AFTER_FULL_STOP`] characters without a letter after a full stop end a sentence in any case;
/// - a longer sentence ends after [`MAX_SENTENCE_BYTES`].
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    let mut part = Part::read(text, start);
    std::iter::from_fn(move || {
        if start == part.range.end {
            part = Part::read(text, start);
        }
        let mut end = start + first_sentence(&text[start..part.range.end])?;
        if part.is_open && part.range.start < start && end + LOOK_AHEAD_BYTES > part.range.end {
            // The text after the part may continue the sentence.
            part = Part::read(text, start);
            end = start + first_sentence(&text[start..part.range.end])?;
        }
        Some(std::mem::replace(&mut start, end)..end)
    })
}

/// The length of the first sentence. `None` when the text is empty.
fn first_sentence(text: &str) -> Option<usize> {
    text.split_sentence_bounds().next().map(str::len)
}

/// The part of a text that unicode-segmentation sees at once.
struct Part {
    range: Range<usize>,
    /// Whether a sentence can go on after the part.
    is_open: bool,
}

impl Part {
    fn read(text: &str, start: usize) -> Self {
        let max_end = text.floor_char_boundary(start.saturating_add(MAX_SENTENCE_BYTES));
        // Characters since a full stop that is not followed by a letter.
        let mut after_full_stop: Option<usize> = None;
        for (offset, character) in text[start..max_end].char_indices() {
            if after_full_stop.is_some_and(|count| count >= MAX_AFTER_FULL_STOP) {
                return Self { range: start..start + offset, is_open: false };
            }
            after_full_stop = match (character, after_full_stop) {
                ('.' | '\u{2024}' | '\u{FE52}' | '\u{FF0E}', _) => Some(0),
                ('\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}', _) | (_, None) => None,
                // A number such as 3.14.
                ('0'..='9', Some(0)) => None,
                (letter, Some(_)) if ends_search(letter) => None,
                (_, Some(count)) => Some(count + 1),
            };
        }
        Self { range: start..max_end, is_open: max_end < text.len() }
    }
}

/// Whether a character is a letter for which UAX #29 ends its search after a full stop. Vowel signs are letters too, but
/// the search passes over them as over all marks. unicode-segmentation does not publish its categories, so its sentences
/// tell them.
fn ends_search(character: char) -> bool {
    if character.is_ascii() || !character.is_alphanumeric() {
        return character.is_ascii_alphabetic();
    }
    let is_divided = |after: char| {
        let text: String = ['.', ' ', character, after].iter().collect();
        first_sentence(&text).is_some_and(|length| length < text.len())
    };
    // The search passes over the character and finds the letter after it: lower case continues the sentence, upper case
    // does not.
    is_divided('a') || !is_divided('A')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of each sentence in characters.
    fn lengths(text: &str) -> Vec<usize> {
        let ranges: Vec<_> = sentences(text).collect();
        assert_eq!(ranges.iter().map(|range| &text[range.clone()]).collect::<String>(), text);
        ranges.into_iter().map(|range| text[range].chars().count()).collect()
    }

    #[test]
    fn natural_sentences_are_those_of_uax_29() {
        let long =
            "It is 3.14 (e.g. pi). \"Really?\" Yes! Das ist z.B. so.\nनमस्ते। क. ख \u{93e}. 你好。再见。 "
                .repeat(3_000);
        assert!(long.len() > 4 * MAX_SENTENCE_BYTES);
        for text in [long.as_str(), "", "a", "One. Two.", "a.\u{93e}) b", "1. 2. A.B. c"] {
            let expected: Vec<_> = text
                .split_sentence_bound_indices()
                .map(|(start, sentence)| start..start + sentence.len())
                .collect();
            assert_eq!(sentences(text).collect::<Vec<_>>(), expected);
        }
    }

    /// unicode-segmentation needs quadratic time for brackets after a full stop, whatever marks are between.
    #[test]
    fn no_character_after_a_full_stop_hides_it() {
        let mut hidden = 0;
        for character in '\0'..=char::MAX {
            let still_after_full_stop = format!("A.{character})B");
            let at_b = still_after_full_stop.len() - 1;
            if first_sentence(&still_after_full_stop) == Some(at_b) {
                hidden += usize::from(character.is_alphanumeric());
                let lengths = lengths(&format!("A.{character}{}", ")".repeat(2 * MAX_AFTER_FULL_STOP)));
                assert!(lengths[0] <= MAX_AFTER_FULL_STOP + 3, "{character:?}: {lengths:?}");
            }
        }
        assert!(hidden > 1_000, "marks that are letters for Rust: {hidden}");
    }

    #[test]
    fn the_search_after_a_full_stop_is_short() {
        for filler in ["1", " ", "\u{301}", "\u{93e}", "\u{ad}", "$", "\u{ff9e}", "😀", ") "] {
            let longest = lengths(&format!("A.)){}", filler.repeat(500))).into_iter().take(1).max();
            assert!(longest <= Some(2 * MAX_AFTER_FULL_STOP), "{filler:?}: {longest:?}");
        }
    }

    #[test]
    fn a_sentence_has_a_maximum_length() {
        let text = "word ".repeat(100_000);
        assert!(sentences(&text).all(|sentence| sentence.len() <= MAX_SENTENCE_BYTES));
        assert_eq!(sentences(&text).count(), text.len().div_ceil(MAX_SENTENCE_BYTES));
    }
}
