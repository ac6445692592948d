//! What an encoder is made of, before any weight is read: its sizes, what its blocks do, what its tensors are called.
//! An architecture is a function from `config.json` to this; one loader and one encoder do the rest.

use super::rotary::Rotary;
use crate::kernels::{AttentionWindow, GluActivation};

/// An encoder, described.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    /// Numbers in a token's vector.
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves as many heads of queries.
    pub(crate) key_value_heads: usize,
    pub(crate) head_width: usize,
    pub(crate) intermediate: usize,
    /// Rows of the word embeddings.
    pub(crate) vocabulary: usize,
    /// Most tokens of a text.
    pub(crate) positions: usize,
    /// For the word embeddings.
    pub(super) word_scale: f32,
    /// For the queries, so that their products with keys are scores.
    pub(super) query_scale: f32,
    /// Rows of the token types' embeddings, of which every token gets the first; 0 is none.
    pub(super) token_types: usize,
    pub(super) position_table: Option<PositionTable>,
    pub(super) score_bias: Option<ScoreBias>,
    pub(super) norm: NormSpec,
    pub(super) feed_forward: FeedForward,
    pub(super) biases: Biases,
    /// The kinds of attention there are, and which of them each layer has.
    pub(super) attention: Vec<AttentionSpec>,
    pub(super) layer_types: Vec<usize>,
    /// Names that checkpoints of this architecture use.
    pub(super) names: &'static [Names],
    /// What checkpoints put before all names, beside nothing.
    pub(super) prefixes: &'static [&'static str],
}

/// Learned positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct PositionTable {
    pub(super) rows: usize,
    /// The row of a text's first token.
    pub(super) first: usize,
}

/// What is added to attention's scores.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScoreBias {
    /// MPNet's learned buckets of distances, as many.
    Buckets(usize),
    /// JinaBERT's slopes.
    Slopes,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NormSpec {
    pub(super) kind: NormKind,
    pub(super) epsilon: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NormKind {
    Layer {
        bias: bool,
    },
    RootMeanSquare,
    /// Weights are kept as their distance from 1.
    RootMeanSquareAroundOne,
}

/// What stands between the two products of a feed-forward layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum FeedForward {
    Gelu,
    Gated(GluActivation),
}

/// Which products have something added to them.
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

/// How the tokens of a layer look at each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AttentionSpec {
    pub(super) sight: AttentionWindow,
    /// By which heads are turned, where positions are rotary.
    pub(super) rotary: Option<Rotary>,
}

impl AttentionSpec {
    /// Every token looks at every other, and positions are in the embeddings.
    pub(super) const PLAIN: Self = Self { sight: AttentionWindow::ALL, rotary: None };
}

/// What tensors are called: those of a layer below `<layers>.<n>.`, all without `.weight` and `.bias`.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) words: &'static str,
    pub(super) token_types: &'static str,
    pub(super) positions: &'static str,
    pub(super) embedding_norm: Option<&'static str>,
    pub(super) layers: &'static str,
    pub(super) qkv: QkvNames,
    /// Of queries and keys, head by head.
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
    /// Stacked in one tensor, in this order.
    GateUp(&'static str),
    UpGate(&'static str),
}

/// A layer's norms, of attention and of the feed-forward part.
#[derive(Debug)]
pub(super) enum NormNames {
    /// x = norm(x + f(x))
    Post([&'static str; 2]),
    /// x = x + f(norm(x))
    Pre([&'static str; 2]),
    /// As `Pre`; the first layer's attention has no norm, because the embeddings just had one.
    PreButFirst([&'static str; 2]),
    /// x = x + behind(f(before(x)))
    Sandwich { before: [&'static str; 2], behind: [&'static str; 2] },
}

/// As BERT writes them.
pub(super) const BERT_NAMES: Names = Names {
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
    /// An encoder of BERT's kind: heads share the hidden size, LayerNorm stands behind, all tokens see each other.
    pub(super) fn of_bert(sizes: &Sizes) -> Self {
        Self {
            hidden: sizes.hidden,
            layers: sizes.layers,
            heads: sizes.heads,
            key_value_heads: sizes.heads,
            head_width: sizes.hidden / sizes.heads,
            intermediate: sizes.intermediate,
            vocabulary: sizes.vocabulary,
            positions: sizes.positions,
            word_scale: 1.0,
            query_scale: 1.0 / ((sizes.hidden / sizes.heads) as f32).sqrt(),
            token_types: 0,
            position_table: None,
            score_bias: None,
            norm: NormSpec { kind: NormKind::Layer { bias: true }, epsilon: sizes.epsilon },
            feed_forward: FeedForward::Gelu,
            biases: Biases::ALL,
            attention: vec![AttentionSpec::PLAIN],
            layer_types: vec![0; sizes.layers],
            names: &[BERT_NAMES],
            prefixes: &[],
        }
    }
}

impl EncoderConfig {
    /// What the vectors depend on beside weights and tokenizer, and a configuration may change: empty for a model whose
    /// tensors say everything.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let mut said = Vec::new();
        for kind in self.attention.iter().filter(|kind| **kind != AttentionSpec::PLAIN) {
            said.extend(
                [kind.sight.back, kind.sight.ahead]
                    .map(|tokens| tokens as u64)
                    .map(u64::to_le_bytes)
                    .concat(),
            );
            let turned = kind.rotary.map_or([0.0; 2], |rotary| [rotary.theta, rotary.stretch]);
            said.extend(turned.map(f64::to_le_bytes).concat());
        }
        if !said.is_empty() {
            said.extend(self.layer_types.iter().flat_map(|kind| (*kind as u64).to_le_bytes()));
            said.extend([self.query_scale, self.word_scale].map(f32::to_le_bytes).concat());
        }
        said
    }
}

/// What every architecture has, under whatever keys.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) epsilon: f32,
}
