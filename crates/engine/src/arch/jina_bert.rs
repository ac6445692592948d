//! JinaBERT v2: as BERT, with ALiBi (a bias on every attention score that grows with the distance of two tokens) in the
//! place of positions and a gated feed-forward layer. Its repositories hold code of their own, and call themselves
//! `bert`. The reference is candle-transformers' `jina_bert`.

use super::{
    bert,
    spec::{Biases, EncoderConfig, FeedForward, Names, NormNames, ScoreBias, UpNames},
};
use crate::{
    LoadError,
    files::Config,
    kernels::{DistanceBias, GluActivation},
};

const NAMES: Names = Names {
    norms: NormNames::Post(["attention.output.LayerNorm", "mlp.layernorm"]),
    up: UpNames::GateUp("mlp.gated_layers"),
    down: "mlp.wo",
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("position_embedding_type", "alibi")?;
    config.require_value("hidden_act", "gelu")?;
    config.require_value("feed_forward_type", "geglu")?;
    let spec = EncoderConfig::of_bert(&bert::sizes(config, config.size("max_position_embeddings")?, 1e-12)?);
    Ok(EncoderConfig {
        token_types: config.count_or("type_vocab_size", 2)?,
        score_bias: Some(ScoreBias::Slopes),
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases { up: false, ..Biases::ALL },
        names: &[NAMES],
        prefixes: &["bert."],
        ..spec
    })
}

/// Minus the distance, times the head's slope.
pub(super) fn bias(heads: usize, reach: usize) -> DistanceBias {
    let farthest = reach as i64 - 1;
    let distances = || (-farthest..=farthest).map(|distance| distance.unsigned_abs() as f32);
    let values =
        slopes(heads).into_iter().flat_map(|slope| distances().map(move |distance| -slope * distance));
    DistanceBias { values: values.collect(), reach }
}

/// 2^-(8i/n) for n heads, a power of two; for other numbers those of the next smaller power, then every second of the
/// next larger one's.
fn slopes(heads: usize) -> Vec<f32> {
    let of = |power: usize| (1..=power).map(move |i| (-8.0 * i as f32 / power as f32).exp2());
    let smaller = 1 << heads.ilog2();
    of(smaller).chain(of(2 * smaller).step_by(2)).take(heads).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn slopes_halve_and_what_is_missing_lies_between() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        let six = slopes(6);
        assert_eq!(six[..4], [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }
}
