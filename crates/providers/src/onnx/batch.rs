//! A batch for a graph, which wants a rectangle: texts of similar length together, so that little of it is padding.

use std::ops::Range;

/// A rectangle may be larger than the tokens in it by this share; a new one costs a call.
const MAX_PADDING: f64 = 0.2;
/// Tokens that fit in one call whatever their padding: below this, calls cost more than padding.
const FEW_TOKENS: usize = 256;

/// Texts that go to the graph in one call.
pub(super) struct Group<'a> {
    /// Each text's place in the batch.
    pub(super) places: &'a [usize],
    /// Tokens of the longest.
    pub(super) width: usize,
}

/// The batch's texts in the order of their length.
pub(super) fn by_length(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|place| lengths[*place]);
    order
}

/// Cuts texts in the order of [`by_length`] where padding would be too much.
pub(super) fn groups<'a>(order: &'a [usize], lengths: &'a [usize]) -> impl Iterator<Item = Group<'a>> {
    let mut rest = 0..order.len();
    std::iter::from_fn(move || {
        let first = rest.start;
        let group: Range<usize> = first..first + fitting(&order[rest.clone()], lengths);
        rest.start = group.end;
        let places = &order[group];
        let width = lengths[*places.last()?].max(1);
        Some(Group { places, width })
    })
}

/// How many of the first texts make a good rectangle; at least one where there is one.
fn fitting(order: &[usize], lengths: &[usize]) -> usize {
    let (mut tokens, mut best) = (0, order.len().min(1));
    for (count, place) in (1..).zip(order) {
        tokens += lengths[*place];
        let rectangle = count * lengths[*place];
        if rectangle > FEW_TOKENS && (rectangle - tokens) as f64 > MAX_PADDING * tokens as f64 {
            return best;
        }
        best = count;
    }
    best
}

/// `[texts × width]`: each text's numbers, and `padding` behind them.
pub(super) fn pad_batch<'a, T: Copy>(
    texts: impl Iterator<Item = &'a [u32]>,
    width: usize,
    number: impl Fn(usize, u32) -> T,
    padding: T,
) -> Vec<T> {
    let mut all = Vec::new();
    for ids in texts {
        let end = all.len() + width;
        all.extend(ids.iter().enumerate().map(|(at, id)| number(at, *id)));
        all.resize(end, padding);
    }
    all
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
                let tokens: usize = group.places.iter().map(|place| lengths[*place]).sum();
                prop_assert!(group.places.iter().all(|place| lengths[*place] <= group.width));
                let rectangle = group.places.len() * group.width;
                prop_assert!(rectangle <= FEW_TOKENS || (rectangle as f64) <= 1.2 * tokens as f64 + 1.0);
                group.places.iter().for_each(|place| seen[*place] += 1);
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
        }
    }

    #[test]
    fn numbers_and_padding() {
        let texts: [&[u32]; 3] = [&[7, 8], &[], &[9]];
        assert_eq!(pad_batch(texts.into_iter(), 2, |_, id| i64::from(id), 0), [7, 8, 0, 0, 9, 0]);
        assert_eq!(pad_batch(texts.into_iter(), 2, |at, _| at, 5), [0, 1, 5, 5, 0, 5]);
    }
}
