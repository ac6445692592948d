//! An encoder in memory: embeddings, then layers of attention and feed-forward parts with their norms. Differences
//! between architectures are values of its fields, read from an [`EncoderConfig`](super::EncoderConfig).
//!
//! `h` is the hidden size.

use super::embedding_table::EmbeddingTable;
use crate::{
    Precision,
    kernels::{AttentionShape, AttentionWindow, DistanceBias, GluActivation, Kernels, Norm, PackedMatrix},
};

/// Weights, packed for the kernels.
pub(crate) struct Encoder {
    pub(super) kernels: Kernels,
    pub(super) precision: Precision,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_width: usize,
    /// Gated activation of the feed-forward part; `None` for plain GELU.
    pub(super) glu: Option<GluActivation>,
    /// `[vocabulary × h]`
    pub(super) word_embeddings: EmbeddingTable,
    /// `[positions × h]`, if positions are learned. Row 0 belongs to a text's first token.
    pub(super) position_embeddings: Option<EmbeddingTable>,
    pub(super) embedding_norm: Option<Norm>,
    pub(super) layers: Vec<Layer>,
    /// The distinct attention types of the layers.
    pub(super) attention_types: Vec<AttentionType>,
    /// Added to the attention scores of every layer.
    pub(super) score_bias: Option<DistanceBias>,
    pub(super) final_norm: Option<Norm>,
    /// Maximum tokens of a text.
    pub(super) max_tokens: usize,
}

pub(super) struct Layer {
    /// Index into [`Encoder::attention_types`].
    pub(super) attention_type: usize,
    /// h → queries (scaled), keys, values.
    pub(super) qkv: PackedMatrix,
    /// Norms of query heads and key heads.
    pub(super) head_norms: Option<[Norm; 2]>,
    /// Concatenated heads → h
    pub(super) attention_output: PackedMatrix,
    /// h → intermediate; or twice that, with the gate first.
    pub(super) up: PackedMatrix,
    /// intermediate → h
    pub(super) down: PackedMatrix,
    pub(super) norms: LayerNorms,
}

/// The position of a layer's norms.
pub(super) enum LayerNorms {
    /// x = norm(x + f(x))
    Post { attention: Norm, feed_forward: Norm },
    /// x = x + after(f(norm(x))); the attention norm and the norms after a part are optional.
    Pre { attention: Option<Norm>, feed_forward: Norm, after: Option<[Norm; 2]> },
}

/// The attention of some layers.
pub(super) struct AttentionType {
    pub(super) window: AttentionWindow,
    /// Rotary position embedding of queries and keys.
    pub(super) rotary: Option<RotaryTable>,
}

/// Cosines and sines of the rotary position embedding.
pub(super) struct RotaryTable {
    /// `[positions × head width]`: the cosines of a head's pairs, then their sines.
    pub(super) values: Vec<f32>,
    pub(super) head_width: usize,
}

impl RotaryTable {
    pub(super) fn row(&self, position: usize) -> &[f32] {
        &self.values[position * self.head_width..][..self.head_width]
    }
}

impl Encoder {
    /// Width of a token vector.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Number of token ids that have an embedding.
    pub(crate) fn vocabulary(&self) -> usize {
        self.word_embeddings.rows()
    }

    /// Maximum tokens of a text.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.up, &layer.down])
    }

    pub(crate) fn linear_operations_per_token(&self) -> usize {
        self.matrices().map(|matrix| 2 * matrix.inputs * matrix.outputs).sum()
    }

    /// Bytes of weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        let rotary_bytes = |attention: &AttentionType| {
            attention.rotary.as_ref().map_or(0, |table| size_of_val(&*table.values))
        };
        self.matrices().map(PackedMatrix::bytes).sum::<usize>()
            + self.word_embeddings.bytes()
            + self.position_embeddings.as_ref().map_or(0, EmbeddingTable::bytes)
            + self.attention_types.iter().map(rotary_bytes).sum::<usize>()
    }

    /// The layout of a row of queries, keys and values, with the window and the bias of one attention type.
    pub(super) fn attention_shape(&self, attention: &AttentionType) -> AttentionShape<'_> {
        AttentionShape {
            heads: self.heads,
            key_value_heads: self.key_value_heads,
            head_width: self.head_width,
            window: attention.window,
            bias: self.score_bias.as_ref(),
        }
    }
}
