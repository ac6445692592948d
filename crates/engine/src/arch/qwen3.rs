//! Qwen3, as Qwen3-Embedding uses it: a decoder whose last token, the end of text that its tokenizer adds, has seen all
//! others. Heads of queries share heads of keys and values, and are normalised one by one. The reference is transformers'
//! `Qwen3Model` in evaluation mode.

use super::{
    bert, modernbert, rotary,
    spec::{
        AttentionSpec, Biases, EncoderConfig, FeedForward, Names, NormKind, NormNames, NormSpec, QkvNames,
        Sizes, UpNames,
    },
};
use crate::{
    LoadError,
    files::{Config, MAX_WIDTH},
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: Names = Names {
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
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_act", "silu")?;
    config.only_flag("use_sliding_window", false)?;
    if modernbert::listed(config, config.size("num_hidden_layers")?)?.is_some_and(|kinds| kinds.contains(&1))
    {
        return Err(config.unsupported("layer_types", "sliding_attention", "full_attention"));
    }
    let spec = decoder(config, (128, 32_768))?;
    let rotary = Some(rotary::read(config, "rope_theta", 10_000.0)?);
    let attention = config.flag_or("attention_bias", false)?;
    Ok(EncoderConfig {
        attention: vec![AttentionSpec { sight: AttentionWindow::BACK, rotary }],
        norm: NormSpec { kind: NormKind::RootMeanSquare, ..spec.norm },
        feed_forward: FeedForward::Gated(GluActivation::Silu),
        biases: Biases { qkv: attention, attention_output: attention, ..Biases::NONE },
        names: &[NAMES],
        prefixes: &["model."],
        ..spec
    })
}

/// What decoders have in common: heads of a width of their own, fewer of them for keys and values.
pub(super) fn decoder(
    config: &Config,
    (head_width, positions): (usize, usize),
) -> Result<EncoderConfig, LoadError> {
    let heads = config.width("num_attention_heads")?;
    let key_value_heads = config.size_or("num_key_value_heads", heads)?;
    if !heads.is_multiple_of(key_value_heads) {
        let found = format!("{key_value_heads}, which does not divide the {heads} heads");
        return Err(config.unsupported("num_key_value_heads", &found, "a divisor of num_attention_heads"));
    }
    let hidden = config.width("hidden_size")?;
    let spec = EncoderConfig::of_bert(&Sizes {
        hidden,
        layers: config.size("num_hidden_layers")?,
        // Their width is set below.
        heads: bert::check_heads_divide(config, "1", (1, hidden))?,
        intermediate: config.width("intermediate_size")?,
        vocabulary: config.size("vocab_size")?,
        positions: config.size_or("max_position_embeddings", positions)?,
        epsilon: config.epsilon("rms_norm_eps", 1e-6)?,
    });
    let head_width = rotary::even(config, config.size_or("head_dim", head_width)?)?;
    if heads * head_width > MAX_WIDTH {
        let supported = format!("at most {MAX_WIDTH} for all heads together");
        return Err(config.unsupported("head_dim", &head_width.to_string(), &supported));
    }
    Ok(EncoderConfig {
        heads,
        key_value_heads,
        head_width,
        query_scale: 1.0 / (head_width as f32).sqrt(),
        ..spec
    })
}
