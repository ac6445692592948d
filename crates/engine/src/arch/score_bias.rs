//! Biases of attention scores that depend on the distance of two tokens: ALiBi and MPNet's relative buckets.

use crate::kernels::DistanceBias;

/// ALiBi: minus the distance times the head's slope, for texts of up to `max_tokens`.
pub(super) fn alibi(heads: usize, max_tokens: usize) -> DistanceBias {
    let max_distance = max_tokens as i64 - 1;
    let distances = || (-max_distance..=max_distance).map(|distance| distance.unsigned_abs() as f32);
    let values =
        alibi_slopes(heads).into_iter().flat_map(|slope| distances().map(move |distance| -slope * distance));
    DistanceBias { values: values.collect(), max_tokens }
}

/// 2^-(8i/n) for n heads, if n is a power of two. Otherwise the slopes of the next smaller power of two, followed by
/// every second slope of the next larger one.
fn alibi_slopes(heads: usize) -> Vec<f32> {
    let slopes = |power: usize| (1..=power).map(move |i| (-8.0 * i as f32 / power as f32).exp2());
    let smaller = 1 << heads.ilog2();
    slopes(smaller).chain(slopes(2 * smaller).step_by(2)).take(heads).collect()
}

/// MPNet's bias for texts of up to `max_tokens`, from its table of `[buckets × heads]`.
pub(super) fn relative_buckets(
    table: &[f32],
    buckets: usize,
    heads: usize,
    max_tokens: usize,
) -> DistanceBias {
    let max_distance = max_tokens as i64 - 1;
    let values = (0..heads)
        .flat_map(|head| (-max_distance..=max_distance).map(move |distance| (head, distance)))
        .map(|(head, distance)| table[bucket(distance, buckets) * heads + head])
        .collect();
    DistanceBias { values, max_tokens }
}

/// Distances from here on share the last bucket.
const MAX_DISTANCE: f32 = 128.0;

/// The bucket of a key that is `distance` tokens after the query, as `MPNetEncoder.relative_position_bucket`. Each
/// direction has half of the buckets. Of those, half hold one small distance each; the others hold larger distances on
/// a logarithmic scale.
fn bucket(distance: i64, buckets: usize) -> usize {
    let half = buckets / 2;
    let side = if distance > 0 { half } else { 0 };
    let (distance, exact) = (distance.unsigned_abs() as usize, half / 2);
    if distance < exact {
        return side + distance;
    }
    // In f32 as in the reference: distances at the border of two buckets depend on the rounding.
    let fraction = (distance as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    side + (exact + (fraction * (half - exact) as f32) as usize).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::{alibi_slopes, bucket};

    #[test]
    fn slopes_halve_and_missing_slopes_lie_between() {
        assert_eq!(alibi_slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        let six = alibi_slopes(6);
        assert_eq!(six[..4], [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }

    /// Values of transformers' function.
    #[test]
    fn buckets_equal_the_reference() {
        let distances = [-511, -128, -64, -20, -9, -8, -7, -1, 0, 1, 7, 8, 9, 20, 64, 127, 128, 511];
        let buckets = [15, 15, 14, 10, 8, 8, 7, 1, 0, 17, 23, 24, 24, 26, 30, 31, 31, 31];
        assert_eq!(distances.map(|distance| bucket(distance, 32)), buckets);
    }
}
