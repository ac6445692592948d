//! NomicBERT: BERT with rotary positions and SwiGLU, without biases. Its repositories contain custom code and use that
//! code's tensor names and configuration keys; transformers uses others. The reference is transformers'
//! `NomicBertModel` in evaluation mode, which reads both.

use super::{
    bert,
    encoder_config::{
        AttentionConfig, BERT_NAMES, Biases, EncoderConfig, FeedForward, NormNames, QkvNames, Sizes,
        TensorNames, UpNames,
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
    embedding_norm: Some("emb_ln"),
    layers: "encoder.layers",
    qkv: QkvNames::Fused("attn.Wqkv"),
    attention_output: "attn.out_proj",
    norms: NormNames::Post(["norm1", "norm2"]),
    up: UpNames::Separate { gate: "mlp.fc12", up: "mlp.fc11" },
    down: "mlp.fc2",
    ..BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<EncoderConfig, LoadError> {
    let (sizes, rotary) =
        if config.has("n_embd") { read_custom_code(config)? } else { read_transformers(config)? };
    let encoder = EncoderConfig::with_bert_defaults(&sizes);
    rope_parameters::require_even(config, encoder.head_width)?;
    Ok(EncoderConfig {
        token_types: config.count_or("type_vocab_size", 2)?,
        attention: vec![AttentionConfig { window: AttentionWindow::ALL, rotary: Some(rotary) }],
        feed_forward: FeedForward::Gated(GluActivation::Silu),
        biases: Biases::NONE,
        tensor_names: &[NAMES, CUSTOM_CODE_NAMES],
        prefixes: &["nomic_bert.", "bert."],
        ..encoder
    })
}

/// Reads a configuration in transformers' format.
fn read_transformers(config: &Config) -> Result<(Sizes, RopeParameters), LoadError> {
    config.require_value("hidden_act", "silu")?;
    let sizes = bert::sizes(config, config.size_or("max_position_embeddings", 2048)?, 1e-12)?;
    if config.size_or("head_dim", sizes.hidden / sizes.heads)? * sizes.heads != sizes.hidden {
        return Err(config.unsupported(
            "head_dim",
            "a different width",
            "the hidden size divided by the number of heads",
        ));
    }
    Ok((sizes, rope_parameters::read(config, "rope_theta", 1000.0)?))
}

/// Reads a configuration of the model repositories, whose format is GPT-2's with additions.
fn read_custom_code(config: &Config) -> Result<(Sizes, RopeParameters), LoadError> {
    config.require_value("activation_function", "swiglu")?;
    for key in [
        "prenorm",
        "parallel_block",
        "use_rms_norm",
        "causal",
        "qkv_proj_bias",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "rotary_emb_interleaved",
    ] {
        // The defaults of the bias keys are true.
        let default = matches!(key, "qkv_proj_bias" | "mlp_fc1_bias" | "mlp_fc2_bias");
        if config.bool_or(key, default)? {
            return Err(config.unsupported(key, "true", "false"));
        }
    }
    if config.f64_or("rotary_emb_fraction", 0.0)? != 1.0 {
        return Err(config.unsupported("rotary_emb_fraction", "not 1", "1: the whole head is rotated"));
    }
    for key in ["rotary_scaling_factor", "rotary_emb_scale_base"] {
        config.require_absent(key)?;
    }
    if config.count_or("num_experts", 0)? > 1 {
        return Err(config.unsupported("num_experts", "a mixture of experts", "none"));
    }
    let (hidden, heads) = (config.width("n_embd")?, config.width("n_head")?);
    let sizes = Sizes {
        hidden,
        layers: config.size("n_layer")?,
        heads: bert::check_heads_divide(config, "n_head", heads, hidden)?,
        intermediate: config.width("n_inner")?,
        vocabulary: config.size("vocab_size")?,
        max_positions: config.size("n_positions")?,
        epsilon: config.epsilon("layer_norm_epsilon", 1e-12)?,
    };
    Ok((sizes, rope_parameters::with_theta(config, "rotary_emb_base", 1000.0)?))
}
