//! Gemma 3's text model, as EmbeddingGemma uses it: all tokens see each other, in most layers within a window; norms
//! stand around the parts. The reference is transformers' `Gemma3TextModel` with `use_bidirectional_attention`, in
//! evaluation mode.

use super::{
    modernbert, qwen3, rotary,
    spec::{
        AttentionSpec, Biases, EncoderConfig, FeedForward, Names, NormKind, NormNames, NormSpec, QkvNames,
        UpNames,
    },
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: Names = Names {
    words: "embed_tokens",
    embedding_norm: None,
    layers: "layers",
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
    attention_output: "self_attn.o_proj",
    norms: NormNames::Sandwich {
        before: ["input_layernorm", "pre_feedforward_layernorm"],
        behind: ["post_attention_layernorm", "post_feedforward_layernorm"],
    },
    up: UpNames::Separate { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    final_norm: Some("norm"),
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    if !config.flag_or("use_bidirectional_attention", false)? {
        let supported = "true: an embedding model, not one that writes";
        return Err(config.unsupported("use_bidirectional_attention", "false", supported));
    }
    config.require_value("hidden_activation", "gelu_pytorch_tanh")?;
    config.require_absent("attn_logit_softcapping")?;
    let spec = qwen3::decoder(config, (256, 131_072))?;
    let everything = rotary::read_of(config, "full_attention", ("rope_theta", 1_000_000.0))?;
    let nearby = rotary::read_of(config, "sliding_attention", ("rope_local_base_freq", 10_000.0))?;
    // Half of the window lies on each side.
    let window = AttentionWindow::around(config.size_or("sliding_window", 4096)? / 2);
    let every = config.either(["sliding_window_pattern", "_sliding_window_pattern"]);
    let every = config.size_or(every, 6)?;
    let default = (1..=spec.layers).map(|layer| usize::from(layer % every != 0)).collect();
    let attention = config.flag_or("attention_bias", false)?;
    Ok(EncoderConfig {
        word_scale: (spec.hidden as f32).sqrt(),
        query_scale: 1.0 / (config.size_or("query_pre_attn_scalar", 256)? as f32).sqrt(),
        attention: vec![
            AttentionSpec { sight: AttentionWindow::ALL, rotary: Some(everything) },
            AttentionSpec { sight: window, rotary: Some(nearby) },
        ],
        layer_types: modernbert::listed(config, spec.layers)?.unwrap_or(default),
        norm: NormSpec { kind: NormKind::RootMeanSquareAroundOne, ..spec.norm },
        feed_forward: FeedForward::Gated(GluActivation::GeluTanh),
        biases: Biases { qkv: attention, attention_output: attention, ..Biases::NONE },
        names: &[NAMES],
        prefixes: &["model."],
        ..spec
    })
}
