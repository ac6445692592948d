//! Rankings, and reciprocal rank fusion (Cormack et al., 2009). It merges rankings by rank, because the scores of
//! different rankings cannot be compared.

use std::collections::HashMap;

/// The constant `k` of the formula `Σ 1 / (k + rank)`. A lower value gives the first ranks more weight.
const RRF_K: f32 = 60.0;

/// Ids with scores, best first.
pub(crate) type Ranking = Vec<(i64, f32)>;

/// An entry of the result of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) id: i64,
    pub(crate) score: f32,
    pub(crate) cosine: Option<f32>,
    /// Rank among the chunks with words of the query, from 1.
    pub(crate) text_rank: Option<u32>,
    pub(crate) text_score: Option<f32>,
}

/// Returns the result of a search by vector.
pub(crate) fn by_vector(ranking: Ranking) -> Vec<Ranked> {
    let ranked = |(id, score)| Ranked { id, score, cosine: Some(score), text_rank: None, text_score: None };
    ranking.into_iter().map(ranked).collect()
}

/// Returns the result of a search by words.
pub(crate) fn by_words(ranking: Ranking) -> Vec<Ranked> {
    let ranked = |((id, score), rank)| Ranked {
        id,
        score,
        cosine: None,
        text_rank: Some(rank),
        text_score: Some(score),
    };
    ranking.into_iter().zip(1..).map(ranked).collect()
}

/// Returns how many entries of each ranking are fused.
pub(crate) fn fused_depth(top_k: usize) -> usize {
    (2 * top_k).max(50)
}

/// Merges a ranking by vector and one by words into the `top` best entries, best first. Equal scores keep the order of
/// first appearance.
pub(crate) fn fuse(near: Ranking, matching: Ranking, top: usize) -> Vec<Ranked> {
    let mut fused: Vec<Ranked> = Vec::new();
    let mut indexes: HashMap<i64, usize> = HashMap::new();
    for ranking in [by_vector(near), by_words(matching)] {
        for (rank, ranked) in ranking.into_iter().enumerate() {
            let index = *indexes.entry(ranked.id).or_insert_with(|| {
                fused.push(Ranked { score: 0.0, ..ranked });
                fused.len() - 1
            });
            let entry = &mut fused[index];
            entry.score += 1.0 / (RRF_K + 1.0 + rank as f32);
            entry.cosine = entry.cosine.or(ranked.cosine);
            entry.text_rank = entry.text_rank.or(ranked.text_rank);
            entry.text_score = entry.text_score.or(ranked.text_score);
        }
    }
    fused.sort_by(|a, b| b.score.total_cmp(&a.score));
    fused.truncate(top);
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(ids: &[i64]) -> Ranking {
        ids.iter().zip(1u8..).map(|(id, rank)| (*id, 1.0 / f32::from(rank))).collect()
    }

    #[test]
    fn an_id_that_both_rank_well_comes_first() {
        let fused = fuse(ranking(&[1, 2, 3]), ranking(&[4, 2, 5]), 3);
        assert_eq!(fused.iter().map(|ranked| ranked.id).collect::<Vec<_>>(), [2, 1, 4]);
        assert!((fused[1].score - 1.0 / 61.0).abs() < 1e-7);
        let parts: Vec<_> =
            fused.iter().map(|ranked| (ranked.cosine, ranked.text_rank, ranked.text_score)).collect();
        assert_eq!(
            parts,
            [(Some(0.5), Some(2), Some(0.5)), (Some(1.0), None, None), (None, Some(1), Some(1.0))]
        );
    }

    #[test]
    fn empty_rankings_give_an_empty_result() {
        assert!(fuse(Vec::new(), Vec::new(), 5).is_empty());
    }
}
