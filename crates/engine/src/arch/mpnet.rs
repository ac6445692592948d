//! MPNet: as BERT, with a bias on every attention score that depends on how far apart two tokens are, one for all
//! layers, and positions that begin behind the padding token's. The reference is transformers' `MPNetModel` in
//! evaluation mode.

use super::{
    bert,
    loader::Loader,
    spec::{EncoderConfig, Names, NormNames, QkvNames, ScoreBias},
};
use crate::{LoadError, files::Config, kernels::DistanceBias};

/// The padding token's id is 1, and a text's first token has the position behind it.
const FIRST_POSITION: usize = 2;
/// Distances from here on share the last bucket.
const MAX_DISTANCE: f32 = 128.0;

const NAMES: Names = Names {
    qkv: QkvNames::Separate(["attention.attn.q", "attention.attn.k", "attention.attn.v"]),
    attention_output: "attention.attn.o",
    norms: NormNames::Post(["attention.LayerNorm", "output.LayerNorm"]),
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    let key = "relative_attention_num_buckets";
    let buckets = if config.has(key) { config.size_in(key, 2..=1 << 24)? } else { 32 };
    let spec = bert::bert_like(config, FIRST_POSITION, 1e-12)?;
    let score_bias = Some(ScoreBias::Buckets(buckets));
    Ok(EncoderConfig { score_bias, names: &[NAMES], prefixes: &["mpnet."], ..spec })
}

/// The bias for texts of up to `reach` tokens.
pub(super) fn bias(loader: &Loader<'_>, buckets: usize) -> Result<DistanceBias, LoadError> {
    let (heads, reach) = (loader.spec.heads, loader.spec.positions);
    let table = loader.tensor("encoder.relative_attention_bias.weight", &[buckets, heads])?;
    let farthest = reach as i64 - 1;
    let values = (0..heads)
        .flat_map(|head| (-farthest..=farthest).map(move |distance| (head, distance)))
        .map(|(head, distance)| table[bucket(distance, buckets) * heads + head])
        .collect();
    Ok(DistanceBias { values, reach })
}

/// The bucket of a key that stands `distance` tokens behind the query: half of the buckets for each direction; in
/// each, half for the nearest distances one by one and half for farther ones on a logarithmic scale. As
/// `MPNetEncoder.relative_position_bucket`.
fn bucket(distance: i64, buckets: usize) -> usize {
    let half = buckets / 2;
    let side = if distance > 0 { half } else { 0 };
    let (distance, exact) = (distance.unsigned_abs() as usize, half / 2);
    if distance < exact {
        return side + distance;
    }
    // In f32, as the reference computes it: distances on the border of two buckets depend on the rounding.
    let share = (distance as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    side + (exact + (share * (half - exact) as f32) as usize).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    /// Values of transformers' own function.
    #[test]
    fn buckets_are_the_references() {
        let distances = [-511, -128, -64, -20, -9, -8, -7, -1, 0, 1, 7, 8, 9, 20, 64, 127, 128, 511];
        let buckets = [15, 15, 14, 10, 8, 8, 7, 1, 0, 17, 23, 24, 24, 26, 30, 31, 31, 31];
        assert_eq!(distances.map(|distance| bucket(distance, 32)), buckets);
    }
}
