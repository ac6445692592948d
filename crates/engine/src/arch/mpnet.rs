//! MPNet: as BERT, with a bias on every attention score that depends on how far apart two tokens are, one for all
//! layers, and positions that begin behind the padding token's. The reference is transformers' `MPNetModel` in
//! evaluation mode.

use super::{
    encoder::Encoder,
    load::{LayerNames, Loader, Specific},
};
use crate::{LoadError, kernels::DistanceBias};

/// The padding token's id is 1, and a text's first token has the position behind it.
pub(super) const FIRST_POSITION: usize = 2;
/// Distances from here on share the last bucket.
const FARTHEST: f32 = 128.0;

pub(super) fn load(loader: &Loader<'_>) -> Result<Encoder, LoadError> {
    let (config, h) = (loader.config, loader.config.hidden_size);
    let positions = "embeddings.position_embeddings.weight";
    let positions = loader.tensors.get(positions, &[config.max_position_embeddings, h])?;
    let (buckets, heads) = (config.relative_attention_num_buckets, config.num_attention_heads);
    let table = loader.tensors.get("encoder.relative_attention_bias.weight", &[buckets, heads])?;
    let reach = config.max_position_embeddings - FIRST_POSITION;
    let farthest = reach as i64 - 1;
    let values = (0..heads)
        .flat_map(|head| (-farthest..=farthest).map(move |distance| (head, distance)))
        .map(|(head, distance)| table[bucket(distance, buckets) * heads + head])
        .collect();
    loader.encoder(Specific {
        names: LayerNames {
            query: "attention.attn.q",
            key: "attention.attn.k",
            value: "attention.attn.v",
            attention_output: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
        },
        positions: positions[FIRST_POSITION * h..].to_vec(),
        bias: Some(DistanceBias { values, reach }),
    })
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
    let share = (distance as f32 / exact as f32).ln() / (FARTHEST / exact as f32).ln();
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
