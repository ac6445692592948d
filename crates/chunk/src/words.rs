//! The words of a text for splitting between them. Scripts without spaces have a dictionary: Chinese, Japanese, Thai,
//! Khmer, Lao and Burmese.

use std::ops::Range;

use icu_segmenter::{WordSegmenter, options::WordBreakInvariantOptions};

/// The words of a text and the text between them.
pub(crate) fn ranges(text: &str) -> impl Iterator<Item = Range<usize>> {
    let segmenter = WordSegmenter::new_dictionary(WordBreakInvariantOptions::default());
    let mut start = 0;
    segmenter.segment_str(text).skip(1).map(move |end| std::mem::replace(&mut start, end)..end)
}
