//! Reciprocal rank fusion (Cormack et al., 2009). It merges rankings by rank, because the scores of different
//! rankings cannot be compared.

use std::collections::HashMap;

/// The constant `k` of the formula `Σ 1 / (k + rank)`. A lower value gives the first ranks more weight.
const RRF_K: f32 = 60.0;

/// Merges rankings into the `top` best ids with their scores, best first. Equal scores keep the order of first
/// appearance.
pub(crate) fn fuse<const N: usize>(rankings: [&[i64]; N], top: usize) -> Vec<(i64, f32)> {
    let mut scores: Vec<(i64, f32)> = Vec::new();
    let mut indexes: HashMap<i64, usize> = HashMap::new();
    for ranking in rankings {
        for (rank, &id) in ranking.iter().enumerate() {
            let index = *indexes.entry(id).or_insert_with(|| {
                scores.push((id, 0.0));
                scores.len() - 1
            });
            scores[index].1 += 1.0 / (RRF_K + 1.0 + rank as f32);
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
    fn an_id_that_both_rank_well_comes_first() {
        let fused = fuse([&[1, 2, 3], &[4, 2, 5]], 3);
        assert_eq!(fused[0].0, 2);
        assert_eq!(fused.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1, 4]);
        assert!((fused[1].1 - 1.0 / 61.0).abs() < 1e-7);
    }

    #[test]
    fn empty_rankings_give_an_empty_result() {
        assert!(fuse([&[], &[]], 5).is_empty());
    }
}
