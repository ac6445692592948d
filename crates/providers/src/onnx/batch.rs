//! Divides a batch into groups for a graph, whose input is a rectangle. Texts of similar length are grouped, so that little
//! of a rectangle is padding.

use std::ops::Range;

/// Maximum padding of a group, as a fraction of its tokens. More groups have less padding and cost more calls.
const MAX_PADDING: f64 = 0.2;
/// Size of a rectangle up to which padding does not matter, because a call costs more.
const MIN_GROUP_TOKENS: usize = 256;

/// Texts of one call of the graph.
pub(super) struct Group<'a> {
    /// The indices of the texts in the batch.
    pub(super) indices: &'a [usize],
    /// The number of tokens of the longest text.
    pub(super) width: usize,
}

/// The indices of a batch's texts, ordered by length.
pub(super) fn by_length(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| lengths[*index]);
    order
}

/// Divides texts, in the order of [`by_length`], into groups with little padding.
pub(super) fn groups<'a>(order: &'a [usize], lengths: &'a [usize]) -> impl Iterator<Item = Group<'a>> {
    let mut rest = 0..order.len();
    std::iter::from_fn(move || {
        let first = rest.start;
        let group: Range<usize> = first..first + fitting(&order[rest.clone()], lengths);
        rest.start = group.end;
        let indices = &order[group];
        let width = lengths[*indices.last()?].max(1);
        Some(Group { indices, width })
    })
}

/// The number of leading texts that form a group; at least one if there is one.
fn fitting(order: &[usize], lengths: &[usize]) -> usize {
    let (mut tokens, mut best) = (0, order.len().min(1));
    for (count, index) in (1..).zip(order) {
        tokens += lengths[*index];
        let rectangle = count * lengths[*index];
        if rectangle > MIN_GROUP_TOKENS && (rectangle - tokens) as f64 > MAX_PADDING * tokens as f64 {
            return best;
        }
        best = count;
    }
    best
}

/// The rectangle `[texts × width]` of the texts' numbers, filled with `padding`. `number` gets the position and the id of a
/// token.
pub(super) fn pad_batch<'a, T: Copy>(
    texts: impl Iterator<Item = &'a [u32]>,
    width: usize,
    number: impl Fn(usize, u32) -> T,
    padding: T,
) -> Vec<T> {
    let mut rectangle = Vec::new();
    for ids in texts {
        let end = rectangle.len() + width;
        rectangle.extend(ids.iter().enumerate().map(|(position, id)| number(position, *id)));
        rectangle.resize(end, padding);
    }
    rectangle
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_is_in_one_group_and_little_is_padding(lengths in proptest::collection::vec(1_usize..600, 0..80)) {
            let order = by_length(&lengths);
            let mut seen = vec![0; lengths.len()];
            for group in groups(&order, &lengths) {
                let tokens: usize = group.indices.iter().map(|index| lengths[*index]).sum();
                prop_assert!(group.indices.iter().all(|index| lengths[*index] <= group.width));
                let rectangle = group.indices.len() * group.width;
                prop_assert!(rectangle <= MIN_GROUP_TOKENS || (rectangle as f64) <= 1.2 * tokens as f64 + 1.0);
                group.indices.iter().for_each(|index| seen[*index] += 1);
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
        }
    }

    #[test]
    fn rectangles_are_padded() {
        let texts: [&[u32]; 3] = [&[7, 8], &[], &[9]];
        assert_eq!(pad_batch(texts.into_iter(), 2, |_, id| i64::from(id), 0), [7, 8, 0, 0, 9, 0]);
        assert_eq!(pad_batch(texts.into_iter(), 2, |position, _| position, 5), [0, 1, 5, 5, 0, 5]);
    }
}
