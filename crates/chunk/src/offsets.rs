//! The byte offsets of a text's units, from which the size of any part follows by binary search.

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::{ChunkError, pieces::Pieces, progress::Progress};

/// The byte offsets at which the units of a text begin and end.
#[derive(Clone, Debug)]
pub struct UnitOffsets {
    /// Address of the text, to locate slices of it.
    base: usize,
    /// Bytes of the text.
    len: usize,
    /// Start offsets, ascending.
    starts: Vec<usize>,
    /// End offsets, ascending. Text between units has no size.
    ends: Vec<usize>,
}

/// Maximum length of a unit. A longer run without a boundary counts as several units, whatever the tokenizer returns:
/// WordPiece maps 200 000 characters without a space to one unknown token.
pub(crate) const MAX_UNIT_BYTES: usize = 64;

impl UnitOffsets {
    /// Units are Unicode scalar values.
    pub fn characters(text: &str) -> Self {
        Self::of_characters(text, &Progress::new(&|| false)).unwrap_or_else(|_| Self::empty(text))
    }

    /// Units are words (UAX #29) that contain a letter or digit. Other visible text counts as one unit for every
    /// 64 bytes, so that a text without words has a size too.
    pub fn words(text: &str) -> Self {
        Self::of_words(text, &Progress::new(&|| false)).unwrap_or_else(|_| Self::empty(text))
    }

    /// Units are the tokens that `count` counts. `count` is called once per distinct piece of text, which is a word with
    /// the white space before it. The tokens of a word do not depend on other words, or differ by a token at most.
    pub fn tokens(text: &str, count: &dyn Fn(&str) -> usize) -> Self {
        Self::of_tokens(text, count, &Progress::new(&|| false)).unwrap_or_else(|_| Self::empty(text))
    }

    pub(crate) fn of_characters(text: &str, progress: &Progress<'_>) -> Result<Self, ChunkError> {
        let mut offsets = Self::empty(text);
        for (start, character) in text.char_indices() {
            progress.step()?;
            offsets.push(start, start + character.len_utf8());
        }
        Ok(offsets)
    }

    pub(crate) fn of_words(text: &str, progress: &Progress<'_>) -> Result<Self, ChunkError> {
        let mut offsets = Self::empty(text);
        // Visible text without a letter or digit since the last unit: its start and its bytes.
        let mut symbols: Option<(usize, usize)> = None;
        for (start, word) in text.split_word_bound_indices() {
            progress.step()?;
            if word.chars().any(char::is_alphanumeric) {
                offsets.spread(start, word, 1);
                symbols = None;
            } else if !word.trim().is_empty() {
                let end = start + word.len();
                let (first, bytes) = symbols.unwrap_or((start, 0));
                let bytes = bytes + word.len();
                symbols = Some((first, bytes));
                if word.len() > MAX_UNIT_BYTES {
                    offsets.spread(start, word, 1);
                    symbols = None;
                } else if bytes >= MAX_UNIT_BYTES {
                    offsets.push(first, end);
                    symbols = None;
                }
            }
        }
        Ok(offsets)
    }

    pub(crate) fn of_tokens(
        text: &str,
        count: &dyn Fn(&str) -> usize,
        progress: &Progress<'_>,
    ) -> Result<Self, ChunkError> {
        let mut offsets = Self::empty(text);
        let mut known: HashMap<&str, usize> = HashMap::new();
        for piece in Pieces::new(text) {
            progress.step()?;
            let counted = &text[piece.start..piece.end];
            let units = *known.entry(counted).or_insert_with(|| count(counted));
            offsets.spread(piece.visible, &text[piece.visible..piece.end], units);
        }
        Ok(offsets)
    }

    fn empty(text: &str) -> Self {
        Self { base: text.as_ptr() as usize, len: text.len(), starts: Vec::new(), ends: Vec::new() }
    }

    fn push(&mut self, start: usize, end: usize) {
        self.starts.push(start);
        self.ends.push(end);
    }

    /// The size of `part`, which must be a slice of the same text; `None` for any other slice.
    pub fn size_of_slice(&self, part: &str) -> Option<usize> {
        let start = (part.as_ptr() as usize).checked_sub(self.base)?;
        (start + part.len() <= self.len).then(|| self.size(start, start + part.len()))
    }

    /// The number of units in the bytes `start..end`. A unit that is only partly inside counts.
    pub fn size(&self, start: usize, end: usize) -> usize {
        self.started(end).saturating_sub(self.ended(start))
    }

    /// Start offsets of the units, ascending.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The number of units.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The largest end for which `start..end` has at most `max` units.
    pub(crate) fn furthest_end(&self, start: usize, max: usize) -> usize {
        self.starts.get(self.ended(start).saturating_add(max)).copied().unwrap_or(self.len)
    }

    /// The smallest start for which `start..end` has at most `max` units.
    pub(crate) fn earliest_start(&self, end: usize, max: usize) -> usize {
        let last_left_out = self.started(end).checked_sub(max + 1);
        last_left_out.map_or(0, |unit| self.ends[unit])
    }

    /// The start of the unit from which `max` units are left before `end`.
    pub(crate) fn unit_start(&self, end: usize, max: usize) -> usize {
        self.starts.get(self.started(end).saturating_sub(max)).copied().unwrap_or(end)
    }

    /// The number of units that start before `end`.
    fn started(&self, end: usize) -> usize {
        self.starts.partition_point(|&unit| unit < end)
    }

    /// The number of units that end at `start` or before.
    fn ended(&self, start: usize) -> usize {
        self.ends.partition_point(|&unit| unit <= start)
    }

    /// Divides `word`, which starts at `word_start`, evenly into `units`. The tokenizer only counts tokens and reports
    /// no positions. Several units may share a character: a rare character has up to four tokens.
    fn spread(&mut self, word_start: usize, word: &str, units: usize) {
        let units = if word.len() <= MAX_UNIT_BYTES {
            units
        } else {
            units.max(word.chars().count().div_ceil(MAX_UNIT_BYTES))
        };
        let unit_start = |unit: usize| word.floor_char_boundary(word.len() * unit / units.max(1));
        for unit in 0..units {
            let start = unit_start(unit);
            let end = unit_start(unit + 1).max(word.ceil_char_boundary(start + 1));
            self.push(word_start + start, word_start + end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Similar to WordPiece: one token for every three letters.
    fn count(text: &str) -> usize {
        text.split_whitespace().map(|word| word.len().div_ceil(3)).sum::<usize>()
    }

    #[test]
    fn the_size_of_a_slice_needs_no_second_count() {
        let text = "one seven  eleven";
        let offsets = UnitOffsets::tokens(text, &count);
        assert_eq!(offsets.size(0, text.len()), 1 + 2 + 2);
        assert_eq!(offsets.size_of_slice(&text[4..9]), Some(2));
        assert_eq!(offsets.size_of_slice("elsewhere"), None);
    }

    #[test]
    fn every_distinct_word_is_counted_once() {
        let calls = std::cell::Cell::new(0);
        let text = "again and again and again";
        UnitOffsets::tokens(text, &|piece| {
            calls.set(calls.get() + 1);
            count(piece)
        });
        assert_eq!(calls.get(), 3, "'again', ' and', ' again'");
    }

    #[test]
    fn a_long_run_without_boundary_is_several_units() {
        let text = "x".repeat(200_000);
        assert_eq!(UnitOffsets::tokens(&text, &|_| 1).size(0, text.len()), 3125);
        assert_eq!(UnitOffsets::words(&text).size(0, text.len()), 3125);
    }

    #[test]
    fn a_text_without_words_has_a_size_in_words() {
        for text in ["- ".repeat(64), "😀".repeat(16), "| ".repeat(100), "=".repeat(64)] {
            assert_eq!(UnitOffsets::words(&text).count(), 1, "{text}");
        }
        assert_eq!(UnitOffsets::words("One, two - three!").count(), 3);
    }

    #[test]
    fn a_character_of_several_tokens_has_all_of_them() {
        let text = "龘龘 龘";
        let offsets = UnitOffsets::tokens(text, &|piece| 3 * piece.trim().chars().count());
        assert_eq!(offsets.size(0, text.len()), 9);
        assert_eq!(offsets.furthest_end(0, 5), 3, "the second character has six tokens with the first");
        assert_eq!(offsets.earliest_start(text.len(), 3), 6);
    }
}
