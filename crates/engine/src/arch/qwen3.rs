//! Qwen3 as Qwen3-Embedding uses it: a decoder with causal attention, grouped-query attention and head norms. The
//! tokenizer appends an end-of-text token, which attends to all others. The reference is transformers' `Qwen3Model` in
//! evaluation mode.

use super::{
    encoder_config::{
        AttentionConfig, BERT_NAMES, Biases, EncoderConfig, FeedForward, NormConfig, NormKind, NormNames,
        QkvNames, Sizes, TensorNames, UpNames,
    },
    modernbert, rope_parameters,
};
use crate::{
    LoadError,
    files::{Config, MAX_WIDTH},
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: TensorNames = TensorNames {
    words: "embed_tokens",
    embedding_norm: None,
    layers: "layers",
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
    attention_output: "self_attn.o_proj",
    norms: NormNames::Pre(["input_layernorm", "post_attention_layernorm"]),
    up: UpNames::Separate { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    final_norm: Some("norm"),
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_act", "silu")?;
    config.require_flag("use_sliding_window", false)?;
    if modernbert::listed_layer_types(config, config.size("num_hidden_layers")?)?
        .is_some_and(|types| types.contains(&1))
    {
        return Err(config.unsupported("layer_types", "sliding_attention", "full_attention"));
    }
    let encoder = decoder(config, 128, 32_768)?;
    let rotary = Some(rope_parameters::read(config, "rope_theta", 10_000.0)?);
    let attention_bias = config.bool_or("attention_bias", false)?;
    Ok(EncoderConfig {
        attention: vec![AttentionConfig { window: AttentionWindow::CAUSAL, rotary }],
        norm: NormConfig { kind: NormKind::RootMeanSquare, ..encoder.norm },
        feed_forward: FeedForward::Gated(GluActivation::Silu),
        biases: Biases { qkv: attention_bias, attention_output: attention_bias, ..Biases::NONE },
        tensor_names: &[NAMES],
        prefixes: &["model."],
        ..encoder
    })
}

/// The description that decoders share: a configured head width, and fewer heads for keys and values. `head_width` and
/// `max_positions` are defaults.
pub(super) fn decoder(
    config: &Config,
    head_width: usize,
    max_positions: usize,
) -> Result<EncoderConfig, LoadError> {
    let heads = config.width("num_attention_heads")?;
    let key_value_heads = config.size_or("num_key_value_heads", heads)?;
    if !heads.is_multiple_of(key_value_heads) {
        let found = format!("{key_value_heads}, which does not divide the {heads} heads");
        return Err(config.unsupported("num_key_value_heads", &found, "a divisor of num_attention_heads"));
    }
    let hidden = config.width("hidden_size")?;
    let encoder = EncoderConfig::with_bert_defaults(&Sizes {
        hidden,
        layers: config.size("num_hidden_layers")?,
        // A placeholder; heads and their width are set below.
        heads: 1,
        intermediate: config.width("intermediate_size")?,
        vocabulary: config.size("vocab_size")?,
        max_positions: config.size_or("max_position_embeddings", max_positions)?,
        epsilon: config.epsilon("rms_norm_eps", 1e-6)?,
    });
    let head_width = rope_parameters::require_even(config, config.size_or("head_dim", head_width)?)?;
    if heads * head_width > MAX_WIDTH {
        let supported = format!("at most {MAX_WIDTH} for all heads combined");
        return Err(config.unsupported("head_dim", &head_width.to_string(), &supported));
    }
    Ok(EncoderConfig {
        heads,
        key_value_heads,
        head_width,
        query_scale: 1.0 / (head_width as f32).sqrt(),
        ..encoder
    })
}
