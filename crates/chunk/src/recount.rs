//! Counts the tokens of whole chunks. A tokenizer may make more tokens of a text than of its pieces together, so a chunk
//! that fits by the sum over its pieces is counted once more as a whole.

use std::ops::Range;

use crate::{ChunkError, progress::Progress};

/// Bytes that a tokenizer reads in the time of a step, about.
const BYTES_PER_STEP: usize = 64;

/// Divides every range that has more than `max` tokens, between words if possible.
pub(crate) fn divide_oversized(
    text: &str,
    ranges: Vec<Range<usize>>,
    count: &dyn Fn(&str) -> usize,
    max: usize,
    progress: &Progress<'_>,
) -> Result<Vec<Range<usize>>, ChunkError> {
    let mut divided = Vec::with_capacity(ranges.len());
    let mut pending = Vec::new();
    for range in ranges {
        pending.push(range);
        while let Some(range) = pending.pop() {
            let part = &text[range.clone()];
            progress.steps(1 + part.len() / BYTES_PER_STEP)?;
            let middle = if count(part.trim()) > max { middle(part) } else { None };
            match middle {
                Some(middle) => {
                    pending.push(range.start + middle..range.end);
                    pending.push(range.start..range.start + middle);
                }
                None => divided.push(range),
            }
        }
    }
    Ok(divided)
}

/// Where a part is divided: after the white space nearest to its middle, or else between two characters. `None` for a
/// single character.
fn middle(part: &str) -> Option<usize> {
    let visible = part.trim_end().len();
    let first = part.len() - part.trim_start().len();
    let center = part.ceil_char_boundary(first + visible.saturating_sub(first) / 2);
    // The searches cover the middle half.
    let quarter = (visible.saturating_sub(first)) / 4;
    let from = part.ceil_char_boundary(center - quarter.min(center));
    let to = part.floor_char_boundary((center + quarter).min(visible));
    let before = part.get(from..center).and_then(|half| Some(from + half.rfind(char::is_whitespace)?));
    let after = part.get(center..to).and_then(|half| Some(center + half.find(char::is_whitespace)?));
    let space = match (before, after) {
        (Some(before), Some(after)) if center - before <= after - center => Some(before),
        (_, Some(after)) => Some(after),
        (before, None) => before,
    };
    let at = space.map_or(center, |space| part.ceil_char_boundary(space + 1));
    [at, center, part.ceil_char_boundary(first + 1)].into_iter().find(|&at| first < at && at < visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_divided_between_words_until_they_fit() {
        // Merged words have more tokens than each alone.
        let count = |part: &str| part.split_whitespace().count().pow(2);
        let text = "one two three four five six";
        let progress = Progress::new(&|| false);
        let ranges =
            divide_oversized(text, std::iter::once(0..text.len()).collect(), &count, 4, &progress).unwrap();
        let parts: Vec<&str> = ranges.into_iter().map(|range| text[range].trim()).collect();
        assert_eq!(parts.concat().replace(' ', ""), text.replace(' ', ""));
        assert!(parts.iter().all(|part| count(part) <= 4), "{parts:?}");
    }

    #[test]
    fn a_single_character_is_not_divided() {
        let progress = Progress::new(&|| false);
        let ranges =
            divide_oversized(" 狐狸 ", std::iter::once(0..8).collect(), &|_| 9, 4, &progress).unwrap();
        assert_eq!(ranges, [0..4, 4..8]);
    }
}
