//! The byte offsets of a text's units, from which the size of any part follows by binary search.

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation as _;

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
const MAX_UNIT_BYTES: usize = 64;

impl UnitOffsets {
    /// Units are Unicode scalar values.
    pub fn characters(text: &str) -> Self {
        let mut offsets = Self::empty(text);
        for (start, character) in text.char_indices() {
            offsets.push(start, start + character.len_utf8());
        }
        offsets
    }

    /// Units are words (UAX #29).
    pub fn words(text: &str) -> Self {
        let mut offsets = Self::empty(text);
        for (start, word) in text.unicode_word_indices() {
            offsets.spread(start, word, 1);
        }
        offsets
    }

    /// Units are the tokens that `count` counts. `count` is called once per distinct word, together with the white
    /// space before it. The tokens of a word do not depend on other words, or differ by a token at most.
    pub fn tokens(text: &str, count: &dyn Fn(&str) -> usize) -> Self {
        let mut offsets = Self::empty(text);
        let mut known: HashMap<&str, usize> = HashMap::new();
        // An empty text consists of the special tokens around every text. They belong to no word.
        let special = count("");
        let mut piece_start = 0;
        for (start, word) in text.split_word_bound_indices() {
            if word.chars().all(char::is_whitespace) {
                continue;
            }
            let piece = &text[piece_start..start + word.len()];
            let units = *known.entry(piece).or_insert_with(|| count(piece).saturating_sub(special));
            offsets.spread(start, word, units);
            piece_start = start + word.len();
        }
        offsets
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
        let started = self.starts.partition_point(|&unit| unit < end);
        started.saturating_sub(self.ends.partition_point(|&unit| unit <= start))
    }

    /// Start offsets of the units, ascending.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Divides `word`, which starts at `word_start`, evenly into `units`. The tokenizer only counts tokens and reports
    /// no positions.
    fn spread(&mut self, word_start: usize, word: &str, units: usize) {
        let units = if word.len() <= MAX_UNIT_BYTES {
            units
        } else {
            units.max(word.chars().count().div_ceil(MAX_UNIT_BYTES))
        };
        let unit_start = |unit: usize| {
            let mut offset = word.len() * unit / units.max(1);
            while !word.is_char_boundary(offset) {
                offset -= 1;
            }
            offset
        };
        for unit in 0..units {
            // With more tokens than characters some units would be empty; they are dropped.
            let (start, end) = (unit_start(unit), unit_start(unit + 1));
            if start < end {
                self.push(word_start + start, word_start + end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Similar to WordPiece: one token for every three letters, and two special tokens.
    fn count(text: &str) -> usize {
        2 + text.split_whitespace().map(|word| word.len().div_ceil(3)).sum::<usize>()
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
        assert_eq!(calls.get(), 1 + 3, "'', 'again', ' and', ' again'");
    }

    #[test]
    fn a_long_run_without_boundary_is_several_units() {
        let text = "x".repeat(200_000);
        assert_eq!(UnitOffsets::tokens(&text, &|_| 1).size(0, text.len()), 3125);
        assert_eq!(UnitOffsets::words(&text).size(0, text.len()), 3125);
    }
}
