//! ModernBERT: rotary positions, gated feed-forward layers, pre-norms, no biases, and sliding-window attention in most
//! layers. The reference is transformers' `ModernBertModel` in evaluation mode.

use super::{
    bert,
    encoder_config::{
        AttentionConfig, BERT_NAMES, Biases, EncoderConfig, FeedForward, NormConfig, NormKind, NormNames,
        QkvNames, Sizes, TensorNames, UpNames,
    },
    rope_parameters,
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: TensorNames = TensorNames {
    words: "embeddings.tok_embeddings",
    embedding_norm: Some("embeddings.norm"),
    layers: "layers",
    qkv: QkvNames::Fused("attn.Wqkv"),
    attention_output: "attn.Wo",
    norms: NormNames::PreButFirst(["attn_norm", "mlp_norm"]),
    up: UpNames::GateUp("mlp.Wi"),
    down: "mlp.Wo",
    final_norm: Some("final_norm"),
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_activation", "gelu")?;
    let epsilon = config.epsilon("norm_eps", 1e-5)?;
    let sizes = bert::sizes(config, config.size("max_position_embeddings")?, 1e-5)?;
    let encoder = EncoderConfig::with_bert_defaults(&Sizes { epsilon, ..sizes });
    rope_parameters::require_even(config, encoder.head_width)?;
    let full =
        rope_parameters::read_for_layer_type(config, "full_attention", "global_rope_theta", 160_000.0)?;
    let sliding =
        rope_parameters::read_for_layer_type(config, "sliding_attention", "local_rope_theta", 10_000.0)?;
    // The configured window covers both sides.
    let window = AttentionWindow::symmetric(config.size_or("local_attention", 128)? / 2);
    let attention_bias = config.bool_or("attention_bias", false)?;
    let mlp_bias = config.bool_or("mlp_bias", false)?;
    Ok(EncoderConfig {
        attention: vec![
            AttentionConfig { window: AttentionWindow::ALL, rotary: Some(full) },
            AttentionConfig { window, rotary: Some(sliding) },
        ],
        layer_types: layer_types(config, encoder.layers)?,
        norm: NormConfig { kind: NormKind::Layer { bias: config.bool_or("norm_bias", false)? }, epsilon },
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases {
            qkv: attention_bias,
            attention_output: attention_bias,
            up: mlp_bias,
            down: mlp_bias,
        },
        tensor_names: &[NAMES],
        prefixes: &["model."],
        ..encoder
    })
}

/// 0 for a layer with full attention, 1 for sliding attention: as `layer_types` lists them, or full attention in every
/// n-th layer, starting with the first.
fn layer_types(config: &Config, layers: usize) -> Result<Vec<usize>, LoadError> {
    let every = config.size_or("global_attn_every_n_layers", 3)?;
    let default = (0..layers).map(|layer| usize::from(layer % every != 0)).collect();
    listed_layer_types(config, layers).map(|listed| listed.unwrap_or(default))
}

/// The configuration's `layer_types`: 0 for full attention, 1 for sliding attention.
pub(super) fn listed_layer_types(config: &Config, layers: usize) -> Result<Option<Vec<usize>>, LoadError> {
    let Some(types) = config.strings("layer_types")? else { return Ok(None) };
    if types.len() != layers {
        let supported = format!("{layers} entries, one per layer");
        return Err(config.unsupported("layer_types", &format!("a list of {}", types.len()), &supported));
    }
    let index = |name: &&str| match *name {
        "full_attention" => Ok(0),
        "sliding_attention" => Ok(1),
        other => Err(config.unsupported("layer_types", other, "full_attention and sliding_attention")),
    };
    types.iter().map(index).collect::<Result<_, _>>().map(Some)
}
