//! GTE's "new" BERT (gte-*-v1.5, gte-multilingual, stella, snowflake-arctic-embed-m-v2.0): rotary positions and a gated
//! feed-forward layer. Its repositories hold code of their own and the names of that; transformers' names are others. The
//! reference is transformers' `GteModel` in evaluation mode, which reads both.

use super::{
    bert,
    rotary::{self, Rotary},
    spec::{AttentionSpec, Biases, EncoderConfig, FeedForward, Names, NormNames, QkvNames, UpNames},
};
use crate::{
    LoadError,
    files::Config,
    kernels::{AttentionWindow, GluActivation},
};

const NAMES: Names = Names {
    layers: "layers",
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_output: "self_attn.o_proj",
    norms: NormNames::Post(["post_attention_layernorm", "post_mlp_layernorm"]),
    up: UpNames::Separate { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    ..super::spec::BERT_NAMES
};

/// As the repositories write them.
const OWN_NAMES: Names = Names {
    qkv: QkvNames::Fused("attention.qkv_proj"),
    attention_output: "attention.o_proj",
    norms: NormNames::Post(["attn_ln", "mlp_ln"]),
    up: UpNames::UpGate("mlp.up_gate_proj"),
    down: "mlp.down_proj",
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    config.require_value("hidden_act", "gelu")?;
    config.require_value("position_embedding_type", "rope")?;
    config.require_value("layer_norm_type", "layer_norm")?;
    config.only_flag("pack_qkv", true)?;
    config.only_flag("logn_attention_scale", false)?;
    let sizes = bert::sizes(config, config.size_or("max_position_embeddings", 8192)?, 1e-12)?;
    let spec = EncoderConfig::of_bert(&sizes);
    rotary::even(config, spec.head_width)?;
    Ok(EncoderConfig {
        token_types: config.count_or("type_vocab_size", 1)?,
        attention: vec![AttentionSpec { sight: AttentionWindow::ALL, rotary: Some(rotary_of(config)?) }],
        feed_forward: FeedForward::Gated(GluActivation::Gelu),
        biases: Biases { up: false, ..Biases::ALL },
        names: &[NAMES, OWN_NAMES],
        prefixes: &["gte.", "new."],
        ..spec
    })
}

fn rotary_of(config: &Config) -> Result<Rotary, LoadError> {
    let scaling = config.below("rope_scaling")?;
    if scaling.text_or("type", "")? != "ntk" {
        return rotary::read(config, "rope_theta", 160_000.0);
    }
    scaling.require_absent("mixed_b")?;
    let stretch = scaling.number_or("factor", 1.0)?;
    if !(stretch >= 1.0 && stretch.is_finite()) {
        return Err(scaling.unsupported("rope_scaling.factor", &stretch.to_string(), "a number from 1 on"));
    }
    let rotary = rotary::base(config, config.number_or("rope_theta", 10_000.0)?)?;
    Ok(Rotary { stretch, ..rotary })
}
