//! Gemma 3's text model as EmbeddingGemma uses it: bidirectional attention, within a window in most layers, and norms
//! before and after each part. The reference is transformers' `Gemma3TextModel` with `use_bidirectional_attention`, in
//! evaluation mode.

use super::{
    encoder_config::{
        AttentionConfig, BERT_NAMES, Biases, EncoderConfig, FeedForward, NormConfig, NormKind, NormNames,
        QkvNames, TensorNames, UpNames,
    },
    modernbert, qwen3, rope_parameters,
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: TensorNames = TensorNames {
    words: "embed_tokens",
    embedding_norm: None,
    layers: "layers",
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
    attention_output: "self_attn.o_proj",
    norms: NormNames::Sandwich {
        before: ["input_layernorm", "pre_feedforward_layernorm"],
        after: ["post_attention_layernorm", "post_feedforward_layernorm"],
    },
    up: UpNames::Separate { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    final_norm: Some("norm"),
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    if !config.bool_or("use_bidirectional_attention", false)? {
        let supported = "true: an embedding model, not a generative one";
        return Err(config.unsupported("use_bidirectional_attention", "false", supported));
    }
    config.require_value("hidden_activation", "gelu_pytorch_tanh")?;
    config.require_absent("attn_logit_softcapping")?;
    let encoder = qwen3::decoder(config, 256, 131_072)?;
    let full = rope_parameters::read_for_layer_type(config, "full_attention", "rope_theta", 1_000_000.0)?;
    let sliding =
        rope_parameters::read_for_layer_type(config, "sliding_attention", "rope_local_base_freq", 10_000.0)?;
    // The configured window covers both sides.
    let window = AttentionWindow::symmetric(config.size_or("sliding_window", 4096)? / 2);
    let pattern_key = config.first_present(["sliding_window_pattern", "_sliding_window_pattern"]);
    let every = config.size_or(pattern_key, 6)?;
    let default = (1..=encoder.layers).map(|layer| usize::from(layer % every != 0)).collect();
    let attention_bias = config.bool_or("attention_bias", false)?;
    Ok(EncoderConfig {
        word_scale: (encoder.hidden as f32).sqrt(),
        query_scale: 1.0 / (config.size_or("query_pre_attn_scalar", 256)? as f32).sqrt(),
        attention: vec![
            AttentionConfig { window: AttentionWindow::ALL, rotary: Some(full) },
            AttentionConfig { window, rotary: Some(sliding) },
        ],
        layer_types: modernbert::listed_layer_types(config, encoder.layers)?.unwrap_or(default),
        norm: NormConfig { kind: NormKind::RootMeanSquareAroundOne, ..encoder.norm },
        feed_forward: FeedForward::Gated(GluActivation::GeluTanh),
        biases: Biases { qkv: attention_bias, attention_output: attention_bias, ..Biases::NONE },
        tensor_names: &[NAMES],
        prefixes: &["model."],
        ..encoder
    })
}
