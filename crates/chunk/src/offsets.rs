//! The sizes of all parts of a text, from one look at it.

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation as _;

/// Where the units of a text begin.
#[derive(Clone, Debug)]
pub struct UnitOffsets {
    /// The text's address and length, to find a part's place in it.
    base: usize,
    len: usize,
    /// Byte offsets of units, ascending.
    starts: Vec<usize>,
    /// Where they end; what stands between units has no size.
    ends: Vec<usize>,
}

/// A run of this many characters without a boundary counts as one more unit, whatever a tokenizer says: to
/// WordPiece, 200 000 characters without a space are one unknown token.
const MAX_UNIT_BYTES: usize = 64;

impl UnitOffsets {
    /// One unit a character.
    pub fn characters(text: &str) -> Self {
        let mut measure = Self::empty(text);
        for (at, character) in text.char_indices() {
            measure.push(at, at + character.len_utf8());
        }
        measure
    }

    /// One unit a word.
    pub fn words(text: &str) -> Self {
        let mut measure = Self::empty(text);
        for (at, word) in text.unicode_word_indices() {
            measure.spread(at, word, 1);
        }
        measure
    }

    /// The units `count` counts. It is asked once for each different word, with the white space before it: what a
    /// tokenizer makes of a word does not depend on the other words, or only by a token here and there.
    pub fn tokens(text: &str, count: &dyn Fn(&str) -> usize) -> Self {
        let mut measure = Self::empty(text);
        let mut known: HashMap<&str, usize> = HashMap::new();
        // What an empty text costs are the special tokens around every text; they are no part of a word.
        let special = count("");
        let mut from = 0;
        for (at, word) in text.split_word_bound_indices() {
            if word.chars().all(char::is_whitespace) {
                continue;
            }
            let piece = &text[from..at + word.len()];
            let units = *known.entry(piece).or_insert_with(|| count(piece).saturating_sub(special));
            measure.spread(at, word, units);
            from = at + word.len();
        }
        measure
    }

    fn empty(text: &str) -> Self {
        Self { base: text.as_ptr() as usize, len: text.len(), starts: Vec::new(), ends: Vec::new() }
    }

    fn push(&mut self, start: usize, end: usize) {
        self.starts.push(start);
        self.ends.push(end);
    }

    /// The size of a part of the measured text, given as the slice itself.
    pub fn size_of(&self, part: &str) -> Option<usize> {
        let from = (part.as_ptr() as usize).checked_sub(self.base)?;
        (from + part.len() <= self.len).then(|| self.size(from, from + part.len()))
    }

    /// How many units lie in a part, one that is cut at either end included.
    pub fn size(&self, from: usize, to: usize) -> usize {
        let begun = self.starts.partition_point(|&start| start < to);
        begun.saturating_sub(self.ends.partition_point(|&end| end <= from))
    }

    /// Where units begin.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Lets `units` begin inside `word`, evenly: a tokenizer that only counts does not say where.
    fn spread(&mut self, at: usize, word: &str, units: usize) {
        let units = if word.len() <= MAX_UNIT_BYTES {
            units
        } else {
            units.max(word.chars().count().div_ceil(MAX_UNIT_BYTES))
        };
        let place = |unit: usize| {
            let mut at = word.len() * unit / units.max(1);
            while !word.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        for unit in 0..units {
            // More tokens than characters: some would be empty, the others stand for them.
            let (start, end) = (place(unit), place(unit + 1));
            if start < end {
                self.push(at + start, at + end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WordPiece of a kind: one token for every three letters, two special ones.
    fn count(text: &str) -> usize {
        2 + text.split_whitespace().map(|word| word.len().div_ceil(3)).sum::<usize>()
    }

    #[test]
    fn parts_have_sizes_without_a_second_look() {
        let text = "one seven  eleven";
        let measure = UnitOffsets::tokens(text, &count);
        assert_eq!(measure.size(0, text.len()), 1 + 2 + 2);
        assert_eq!(measure.size_of(&text[4..9]), Some(2));
        assert_eq!(measure.size_of("elsewhere"), None);
    }

    #[test]
    fn every_word_is_counted_once() {
        let asked = std::cell::Cell::new(0);
        let text = "again and again and again";
        UnitOffsets::tokens(text, &|piece| {
            asked.set(asked.get() + 1);
            count(piece)
        });
        assert_eq!(asked.get(), 1 + 3, "nothing, 'again', ' and', ' again'");
    }

    #[test]
    fn a_run_without_boundary_is_not_one_unit() {
        let text = "x".repeat(200_000);
        assert_eq!(UnitOffsets::tokens(&text, &|_| 1).size(0, text.len()), 3125);
        assert_eq!(UnitOffsets::words(&text).size(0, text.len()), 3125);
    }
}
