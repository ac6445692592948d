//! Reciprocal rank fusion: two rankings become one, without comparing scores that mean different things.

use std::collections::HashMap;

/// The usual constant: how much the first few ranks stand out.
const RRF_K: f32 = 60.0;

/// Fuses rankings, best first. Equal scores keep the order of first appearance.
pub(crate) fn fuse<const N: usize>(rankings: [&[i64]; N], top: usize) -> Vec<(i64, f32)> {
    let mut scores: Vec<(i64, f32)> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for ranking in rankings {
        for (rank, &id) in ranking.iter().enumerate() {
            let place = *places.entry(id).or_insert_with(|| {
                scores.push((id, 0.0));
                scores.len() - 1
            });
            scores[place].1 += 1.0 / (RRF_K + 1.0 + rank as f32);
        }
    }
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.truncate(top);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_rank_well_comes_first() {
        let fused = fuse([&[1, 2, 3], &[4, 2, 5]], 3);
        assert_eq!(fused[0].0, 2);
        assert_eq!(fused.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1, 4]);
        assert!((fused[1].1 - 1.0 / 61.0).abs() < 1e-7);
    }

    #[test]
    fn nothing_from_nothing() {
        assert!(fuse([&[], &[]], 5).is_empty());
    }
}
