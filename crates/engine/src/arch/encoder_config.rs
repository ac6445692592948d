//! The description of an encoder before its weights are read: sizes, operations of a block, tensor names. An
//! architecture maps `config.json` to this description. One loader and one encoder serve all architectures.

use super::rope_parameters::RopeParameters;
use crate::kernels::{AttentionWindow, GluActivation};

/// The description of an encoder.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    /// Width of a token vector.
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Heads of keys and values (grouped-query attention); each serves `heads / key_value_heads` query heads.
    pub(crate) key_value_heads: usize,
    pub(crate) head_width: usize,
    /// Width of the feed-forward layer.
    pub(crate) intermediate: usize,
    /// Rows of the word embeddings.
    pub(crate) vocabulary: usize,
    /// Maximum tokens of a text.
    pub(crate) max_positions: usize,
    /// Factor of the word embeddings.
    pub(super) word_scale: f32,
    /// Factor of the queries. It makes their dot products with keys attention scores.
    pub(super) query_scale: f32,
    /// Rows of the token type embeddings, or 0 for none. Every token has type 0.
    pub(super) token_types: usize,
    pub(super) position_table: Option<PositionTable>,
    pub(super) score_bias: Option<ScoreBias>,
    pub(super) norm: NormConfig,
    pub(super) feed_forward: FeedForward,
    pub(super) biases: Biases,
    /// The distinct attention configurations; `layer_types` holds each layer's index into this list.
    pub(super) attention: Vec<AttentionConfig>,
    pub(super) layer_types: Vec<usize>,
    /// Naming schemes that checkpoints of this architecture use.
    pub(super) tensor_names: &'static [TensorNames],
    /// Prefixes that checkpoints may add to every tensor name, besides none.
    pub(super) prefixes: &'static [&'static str],
}

/// Learned position embeddings.
#[derive(Clone, Copy, Debug)]
pub(super) struct PositionTable {
    pub(super) rows: usize,
    /// Row of a text's first token.
    pub(super) first: usize,
}

/// A term that is added to attention scores.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScoreBias {
    /// MPNet: a learned bias per bucket of distances. Holds the number of buckets.
    RelativeBuckets(usize),
    /// JinaBERT: ALiBi, a fixed slope per head.
    Alibi,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NormConfig {
    pub(super) kind: NormKind,
    pub(super) epsilon: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NormKind {
    Layer {
        bias: bool,
    },
    RootMeanSquare,
    /// The checkpoint stores weights minus 1.
    RootMeanSquareAroundOne,
}

/// The activation between the two products of a feed-forward layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum FeedForward {
    Gelu,
    Gated(GluActivation),
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Biases {
    pub(super) qkv: bool,
    pub(super) attention_output: bool,
    pub(super) up: bool,
    pub(super) down: bool,
}

impl Biases {
    pub(super) const ALL: Self = Self { qkv: true, attention_output: true, up: true, down: true };
    pub(super) const NONE: Self = Self { qkv: false, attention_output: false, up: false, down: false };
}

/// The attention of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AttentionConfig {
    pub(super) window: AttentionWindow,
    /// Rotary position embedding, if the architecture has one.
    pub(super) rotary: Option<RopeParameters>,
}

impl AttentionConfig {
    /// Bidirectional attention over the whole text, without rotary positions.
    pub(super) const BIDIRECTIONAL: Self = Self { window: AttentionWindow::ALL, rotary: None };
}

/// Tensor names of a checkpoint, without `.weight` and `.bias`. Names of a layer are relative to `<layers>.<n>.`.
#[derive(Debug)]
pub(super) struct TensorNames {
    pub(super) words: &'static str,
    pub(super) token_types: &'static str,
    pub(super) positions: &'static str,
    pub(super) embedding_norm: Option<&'static str>,
    pub(super) layers: &'static str,
    pub(super) qkv: QkvNames,
    /// Norms of query heads and key heads.
    pub(super) head_norms: Option<[&'static str; 2]>,
    pub(super) attention_output: &'static str,
    pub(super) norms: NormNames,
    pub(super) up: UpNames,
    pub(super) down: &'static str,
    pub(super) final_norm: Option<&'static str>,
}

#[derive(Debug)]
pub(super) enum QkvNames {
    Separate([&'static str; 3]),
    /// Queries, keys and values stacked in one tensor.
    Fused(&'static str),
}

#[derive(Debug)]
pub(super) enum UpNames {
    Plain(&'static str),
    Separate {
        gate: &'static str,
        up: &'static str,
    },
    /// Gate and up projection stacked in one tensor, in this order.
    GateUp(&'static str),
    /// Up projection and gate stacked in one tensor, in this order.
    UpGate(&'static str),
}

/// A layer's norms: for attention and for the feed-forward part.
#[derive(Debug)]
pub(super) enum NormNames {
    /// x = norm(x + f(x))
    Post([&'static str; 2]),
    /// x = x + f(norm(x))
    Pre([&'static str; 2]),
    /// As `Pre`, but the first layer's attention has no norm, because the embeddings are already normalized.
    PreButFirst([&'static str; 2]),
    /// x = x + after(f(before(x)))
    Sandwich { before: [&'static str; 2], after: [&'static str; 2] },
}

/// BERT's tensor names.
pub(super) const BERT_NAMES: TensorNames = TensorNames {
    words: "embeddings.word_embeddings",
    token_types: "embeddings.token_type_embeddings",
    positions: "embeddings.position_embeddings",
    embedding_norm: Some("embeddings.LayerNorm"),
    layers: "encoder.layer",
    qkv: QkvNames::Separate(["attention.self.query", "attention.self.key", "attention.self.value"]),
    head_norms: None,
    attention_output: "attention.output.dense",
    norms: NormNames::Post(["attention.output.LayerNorm", "output.LayerNorm"]),
    up: UpNames::Plain("intermediate.dense"),
    down: "output.dense",
    final_norm: None,
};

impl EncoderConfig {
    /// An encoder with BERT's structure: heads divide the hidden size, post-LayerNorm, bidirectional attention,
    /// GELU, biases everywhere, no positions and no token types.
    pub(super) fn with_bert_defaults(sizes: &Sizes) -> Self {
        Self {
            hidden: sizes.hidden,
            layers: sizes.layers,
            heads: sizes.heads,
            key_value_heads: sizes.heads,
            head_width: sizes.hidden / sizes.heads,
            intermediate: sizes.intermediate,
            vocabulary: sizes.vocabulary,
            max_positions: sizes.max_positions,
            word_scale: 1.0,
            query_scale: 1.0 / ((sizes.hidden / sizes.heads) as f32).sqrt(),
            token_types: 0,
            position_table: None,
            score_bias: None,
            norm: NormConfig { kind: NormKind::Layer { bias: true }, epsilon: sizes.epsilon },
            feed_forward: FeedForward::Gelu,
            biases: Biases::ALL,
            attention: vec![AttentionConfig::BIDIRECTIONAL],
            layer_types: vec![0; sizes.layers],
            tensor_names: &[BERT_NAMES],
            prefixes: &[],
        }
    }

    /// The settings that change vectors and that only the configuration holds, as bytes for the fingerprint. Empty for
    /// a model whose tensors determine its vectors.
    pub(crate) fn identity_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let attention = self.attention.iter();
        for config in attention.filter(|config| **config != AttentionConfig::BIDIRECTIONAL) {
            bytes.extend(
                [config.window.back, config.window.ahead]
                    .map(|tokens| tokens as u64)
                    .map(u64::to_le_bytes)
                    .concat(),
            );
            let rotary = config.rotary.map_or([0.0; 2], |rotary| [rotary.theta, rotary.scaling_factor]);
            bytes.extend(rotary.map(f64::to_le_bytes).concat());
        }
        if !bytes.is_empty() {
            bytes.extend(self.layer_types.iter().flat_map(|index| (*index as u64).to_le_bytes()));
            bytes.extend([self.query_scale, self.word_scale].map(f32::to_le_bytes).concat());
        }
        bytes
    }
}

/// The sizes that every architecture has.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) max_positions: usize,
    pub(super) epsilon: f32,
}
