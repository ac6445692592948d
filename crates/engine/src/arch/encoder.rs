//! The encoder that all architectures share: embeddings, then layers of attention and feed-forward, each with norms
//! before or behind it. What differs between architectures is in the fields; [`Spec`](super::EncoderConfig) says it.
//!
//! All texts of a call lie end to end, `t` tokens in all, with no padding: every linear layer is a matrix product
//! over tokens, and only attention looks at texts one by one. The tokens are divided evenly among the threads,
//! wherever a text ends, so that one long text uses all of them; a thread takes its tokens through a whole layer
//! while they are in its cache, and waits for the others once a layer, when queries, keys and values of all
//! tokens are there. `h` is the hidden size.

use std::ops::Range;

use super::{
    embedding_table::EmbeddingTable,
    forward::{Scratch, ThreadForward},
    shared_buffer::SharedBuffer,
};
use crate::{
    Precision, Tokens,
    kernels::{
        AttentionShape, AttentionWindow, DistanceBias, GluActivation, Kernels, Norm, PackedMatrix, ensure_len,
    },
    thread_pool::PoolGuard,
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
    /// Between the two products of the feed-forward part, where that is not GELU alone.
    pub(super) gate: Option<GluActivation>,
    /// `[vocabulary × h]`
    pub(super) words: EmbeddingTable,
    /// `[positions × h]`, where positions are learned; a text's first token has the first row.
    pub(super) positions: Option<EmbeddingTable>,
    pub(super) embedding_norm: Option<Norm>,
    pub(super) layers: Vec<Layer>,
    pub(super) kinds: Vec<AttentionKind>,
    /// Added to every layer's attention scores.
    pub(super) bias: Option<DistanceBias>,
    pub(super) final_norm: Option<Norm>,
    /// Most tokens of a text.
    pub(super) longest: usize,
}

pub(super) struct Layer {
    /// Which of the encoder's kinds of attention it has.
    pub(super) kind: usize,
    /// h → queries (scaled), keys, values.
    pub(super) qkv: PackedMatrix,
    /// Of each head's queries and keys.
    pub(super) head_norms: Option<[Norm; 2]>,
    /// Heads together → h
    pub(super) attention_output: PackedMatrix,
    /// h → intermediate, or twice that: gates first, then what they gate.
    pub(super) up: PackedMatrix,
    /// intermediate → h
    pub(super) down: PackedMatrix,
    pub(super) norms: LayerNorms,
}

/// Where a layer's norms stand.
pub(super) enum LayerNorms {
    /// x = norm(x + f(x))
    Post { attention: Norm, feed_forward: Norm },
    /// x = x + behind(f(norm(x))), some of them perhaps missing.
    Pre { attention: Option<Norm>, feed_forward: Norm, behind: Option<[Norm; 2]> },
}

/// How the tokens of a layer look at each other.
pub(super) struct AttentionKind {
    pub(super) sight: AttentionWindow,
    /// By which queries and keys are turned.
    pub(super) angles: Option<Angles>,
}

/// Angles of rotary positions.
pub(super) struct Angles {
    /// `[positions × head width]`: the cosines of a head's pairs, then their sines.
    pub(super) numbers: Vec<f32>,
    pub(super) head_width: usize,
}

impl Angles {
    pub(super) fn at(&self, position: usize) -> &[f32] {
        &self.numbers[position * self.head_width..][..self.head_width]
    }
}

/// Buffers of one call, kept for the next.
#[derive(Default)]
pub(crate) struct Workspace {
    /// `[t × h]`, the tokens' vectors.
    x: Vec<f32>,
    /// Two of queries, keys and values of all tokens, in turn: while one layer's are read, the next layer's are
    /// written.
    qkv: [SharedBuffer; 2],
    members: Vec<Scratch>,
}

/// Tokens below which another thread is not worth waking.
const MIN_ROWS_PER_THREAD: usize = 4;

impl Encoder {
    /// Numbers in a token's vector.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// How many tokens the model knows, and how many it reads.
    pub(crate) fn reads(&self) -> (usize, usize) {
        (self.words.rows(), self.longest)
    }

    fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.up, &layer.down])
    }

    pub(crate) fn linear_operations_per_token(&self) -> usize {
        self.matrices().map(|matrix| 2 * matrix.inputs * matrix.outputs).sum()
    }

    /// Bytes of weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        let angles =
            |kind: &AttentionKind| kind.angles.as_ref().map_or(0, |angles| size_of_val(&*angles.numbers));
        self.matrices().map(PackedMatrix::bytes).sum::<usize>()
            + self.words.bytes()
            + self.positions.as_ref().map_or(0, EmbeddingTable::bytes)
            + self.kinds.iter().map(angles).sum::<usize>()
    }

    /// How rows of queries, keys and values are divided, and what the tokens of a layer of this kind see.
    pub(super) fn heads(&self, kind: &AttentionKind) -> AttentionShape<'_> {
        AttentionShape {
            count: self.heads,
            key_values: self.key_value_heads,
            width: self.head_width,
            sight: kind.sight,
            bias: self.bias.as_ref(),
        }
    }

    /// The last layer's token vectors, `[t × h]`, of all texts end to end.
    pub(crate) fn forward<'a>(
        &self,
        turn: &PoolGuard<'_>,
        texts: &[&Tokens],
        work: &'a mut Workspace,
    ) -> &'a [f32] {
        let h = self.hidden;
        let spans = spans(texts);
        let t = spans.last().map_or(0, |span| span.end);
        let members = t.div_ceil(MIN_ROWS_PER_THREAD).clamp(1, turn.count());
        ensure_len(&mut work.x, t * h);
        let form = self.kernels.attention_form(self.precision, self.head_width);
        let width = (self.heads + 2 * self.key_value_heads) * self.head_width;
        work.qkv.iter_mut().for_each(|qkv| qkv.resize(form, t, width));
        if work.members.len() < members {
            work.members.resize_with(members, Scratch::default);
        }
        let (rows, apart) = divide(&spans, members);
        let mut parts = Vec::with_capacity(members);
        let mut rest = &mut work.x[..t * h];
        for (member, scratch) in work.members.iter_mut().enumerate().take(members) {
            let (own, others) = rest.split_at_mut(rows[member].len() * h);
            parts.push(std::sync::Mutex::new(Some((own, scratch))));
            rest = others;
        }
        let qkv = &work.qkv;
        turn.run_on(members, |member| {
            // Every member takes its own part, once.
            let part = parts[member.index].lock().ok().and_then(|mut part| part.take());
            // One that went home without its part would leave the others waiting for ever.
            let (x, scratch) = part.unwrap_or_else(|| unreachable!("a part for each member"));
            let rows = rows[member.index].clone();
            let share = ThreadForward { encoder: self, texts, spans: &spans, rows, qkv };
            // SAFETY: `divide` gives every token to one member, and says `apart` only when every border between two
            // members is one between two texts.
            unsafe { share.run((!apart).then_some(member), x, scratch) }
        });
        drop(parts);
        &work.x[..t * h]
    }
}

/// Where each text's tokens lie.
fn spans(texts: &[&Tokens]) -> Vec<Range<usize>> {
    let mut end = 0;
    texts
        .iter()
        .map(|text| {
            let first = end;
            end += text.len();
            first..end
        })
        .collect()
}

/// Divides the tokens among the members, evenly or, where that is nearly even, between texts; and whether no text is
/// shared, so that nobody has to wait for anybody.
fn divide(spans: &[Range<usize>], members: usize) -> (Vec<Range<usize>>, bool) {
    let t = spans.last().map_or(0, |span| span.end);
    let even = |member: usize| t * member / members;
    let between = |member: usize| {
        let next = spans.partition_point(|span| span.end < even(member));
        let span = &spans[next.min(spans.len() - 1)];
        let nearest = if even(member) - span.start < span.end - even(member) { span.start } else { span.end };
        (nearest.abs_diff(even(member)) * members * UNEVEN <= t).then_some(nearest)
    };
    let inner: Option<Vec<usize>> = (1..members).map(between).collect();
    let apart = inner.is_some();
    let inner = inner.unwrap_or_else(|| (1..members).map(even).collect());
    let starts = std::iter::once(0).chain(inner.iter().copied());
    let ends = inner.iter().copied().chain([t]);
    (starts.zip(ends).map(|(start, end)| start..end).collect(), apart)
}

/// A share may be larger or smaller by its n-th part, where that spares the members from waiting for each other: on a
/// machine that also does other work, waiting costs more.
const UNEVEN: usize = 12;

/// What two ranges have in common; empty, not reversed, where that is nothing.
pub(super) fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::{divide, overlap};

    #[expect(clippy::single_range_in_vec_init, reason = "one text is one range")]
    #[test]
    fn tokens_are_divided_between_texts_where_that_is_nearly_even() {
        assert_eq!(divide(&[0..10, 10..20], 2), (vec![0..10, 10..20], true));
        assert_eq!(divide(&[0..48, 48..52, 52..100], 2), (vec![0..52, 52..100], true));
        assert_eq!(divide(&[0..100], 2), (vec![0..50, 50..100], false));
        assert_eq!(divide(&[0..30, 30..100], 2), (vec![0..50, 50..100], false));
        assert_eq!(divide(&[0..7], 1), (vec![0..7], true));
        let texts: Vec<_> = (0..300).map(|i| i * 3..i * 3 + 3).collect();
        let (rows, apart) = divide(&texts, 4);
        assert!(apart && rows[0].start == 0 && rows[3].end == 900);
        assert!(rows.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn what_ranges_have_in_common() {
        assert_eq!(overlap(&(0..5), &(3..9)), 3..5);
        assert_eq!(overlap(&(3..9), &(0..5)), 3..5);
        assert!(overlap(&(0..3), &(3..9)).is_empty());
        assert!(overlap(&(7..9), &(0..3)).is_empty());
    }
}
