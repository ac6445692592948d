//! ModernBERT: rotary positions, gated feed-forward layers, norms before the parts, nothing added by products; most
//! layers see only their neighbourhood. The reference is transformers' `ModernBertModel` in evaluation mode.

use super::{
    bert, rotary,
    spec::{
        AttentionSpec, Biases, EncoderConfig, FeedForward, Names, NormKind, NormNames, NormSpec, QkvNames,
        Sizes, UpNames,
    },
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: Names = Names {
    words: "embeddings.tok_embeddings",
    embedding_norm: Some("embeddings.norm"),
    layers: "layers",
    qkv: QkvNames::Fused("attn.Wqkv"),
    attention_output: "attn.Wo",
    norms: NormNames::PreButFirst(["attn_norm", "mlp_norm"]),
    up: UpNames::GateUp("mlp.Wi"),
    down: "mlp.Wo",
    final_norm: Some("final_norm"),
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_activation", "gelu")?;
    let epsilon = config.epsilon("norm_eps", 1e-5)?;
    let sizes = bert::sizes(config, config.size("max_position_embeddings")?, 1e-5)?;
    let spec = EncoderConfig::of_bert(&Sizes { epsilon, ..sizes });
    rotary::even(config, spec.head_width)?;
    let everything = rotary::read_of(config, "full_attention", ("global_rope_theta", 160_000.0))?;
    let nearby = rotary::read_of(config, "sliding_attention", ("local_rope_theta", 10_000.0))?;
    // Half of the window lies on each side.
    let window = AttentionWindow::around(config.size_or("local_attention", 128)? / 2);
    let attention = config.flag_or("attention_bias", false)?;
    let feed_forward = config.flag_or("mlp_bias", false)?;
    Ok(EncoderConfig {
        attention: vec![
            AttentionSpec { sight: AttentionWindow::ALL, rotary: Some(everything) },
            AttentionSpec { sight: window, rotary: Some(nearby) },
        ],
        layer_types: kinds(config, spec.layers)?,
        norm: NormSpec { kind: NormKind::Layer { bias: config.flag_or("norm_bias", false)? }, epsilon },
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases { qkv: attention, attention_output: attention, up: feed_forward, down: feed_forward },
        names: &[NAMES],
        prefixes: &["model."],
        ..spec
    })
}

/// 0 for a layer that sees everything, 1 for one with a window: as listed, or every third from the first on.
fn kinds(config: &Config, layers: usize) -> Result<Vec<usize>, LoadError> {
    let every = config.size_or("global_attn_every_n_layers", 3)?;
    let default = (0..layers).map(|layer| usize::from(layer % every != 0)).collect();
    listed(config, layers).map(|listed| listed.unwrap_or(default))
}

/// What `layer_types` lists: 0 for full attention, 1 for sliding attention.
pub(super) fn listed(config: &Config, layers: usize) -> Result<Option<Vec<usize>>, LoadError> {
    let Some(types) = config.texts("layer_types")? else { return Ok(None) };
    if types.len() != layers {
        let supported = format!("{layers}, one for each layer");
        return Err(config.unsupported("layer_types", &format!("a list of {}", types.len()), &supported));
    }
    let kind = |name: &&str| match *name {
        "full_attention" => Ok(0),
        "sliding_attention" => Ok(1),
        other => Err(config.unsupported("layer_types", other, "full_attention and sliding_attention")),
    };
    types.iter().map(kind).collect::<Result<_, _>>().map(Some)
}
