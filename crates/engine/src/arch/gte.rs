//! GTE's "new" BERT (gte-*-v1.5, gte-multilingual, stella, snowflake-arctic-embed-m-v2.0): rotary positions and a gated
//! feed-forward layer. Its repositories contain custom code and use that code's tensor names; transformers uses others.
//! The reference is transformers' `GteModel` in evaluation mode, which reads both.

use super::{
    bert,
    encoder_config::{
        AttentionConfig, BERT_NAMES, Biases, EncoderConfig, FeedForward, NormNames, QkvNames, TensorNames,
        UpNames,
    },
    rope_parameters::{self, RopeParameters},
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: TensorNames = TensorNames {
    layers: "layers",
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_output: "self_attn.o_proj",
    norms: NormNames::Post(["post_attention_layernorm", "post_mlp_layernorm"]),
    up: UpNames::Separate { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    ..BERT_NAMES
};

/// Tensor names in the model repositories.
const CUSTOM_CODE_NAMES: TensorNames = TensorNames {
    qkv: QkvNames::Fused("attention.qkv_proj"),
    attention_output: "attention.o_proj",
    norms: NormNames::Post(["attn_ln", "mlp_ln"]),
    up: UpNames::UpGate("mlp.up_gate_proj"),
    down: "mlp.down_proj",
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_act", "gelu")?;
    config.require_value("position_embedding_type", "rope")?;
    config.require_value("layer_norm_type", "layer_norm")?;
    config.require_flag("pack_qkv", true)?;
    config.require_flag("logn_attention_scale", false)?;
    let sizes = bert::sizes(config, config.size_or("max_position_embeddings", 8192)?, 1e-12)?;
    let encoder = EncoderConfig::with_bert_defaults(&sizes);
    rope_parameters::require_even(config, encoder.head_width)?;
    Ok(EncoderConfig {
        token_types: config.count_or("type_vocab_size", 1)?,
        attention: vec![AttentionConfig { window: AttentionWindow::ALL, rotary: Some(read_rotary(config)?) }],
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases { up: false, ..Biases::ALL },
        tensor_names: &[NAMES, CUSTOM_CODE_NAMES],
        prefixes: &["gte.", "new."],
        ..encoder
    })
}

fn read_rotary(config: &Config) -> Result<RopeParameters, LoadError> {
    let scaling = config.section("rope_scaling")?;
    if scaling.str_or("type", "")? != "ntk" {
        return rope_parameters::read(config, "rope_theta", 160_000.0);
    }
    scaling.require_absent("mixed_b")?;
    let scaling_factor = scaling.f64_or("factor", 1.0)?;
    if !(scaling_factor >= 1.0 && scaling_factor.is_finite()) {
        return Err(scaling.unsupported(
            "rope_scaling.factor",
            &scaling_factor.to_string(),
            "a number of at least 1",
        ));
    }
    let rotary = rope_parameters::with_theta(config, "rope_theta", 10_000.0)?;
    Ok(RopeParameters { scaling_factor, ..rotary })
}
