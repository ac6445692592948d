//! The encoder that BERT and its kin share: embeddings, then layers of attention and feed-forward, each followed
//! by residual and LayerNorm. Architectures differ in the names of their tensors and in small parts, which their
//! own files fill in.
//!
//! All texts of a call lie end to end, `t` tokens in all, with no padding: every linear layer is a matrix product
//! over tokens, and only attention looks at texts one by one. The tokens are divided evenly among the threads,
//! wherever a text ends, so that one long text uses all of them; a thread takes its tokens through a whole layer
//! while they are in its cache, and waits for the others once a layer, when queries, keys and values of all
//! tokens are there. `h` is the hidden size.

use std::ops::Range;

use super::{shared::SharedRows, table::Table};
use crate::{
    Precision, Tokens,
    kernels::{
        Asking, DistanceBias, Form, Heads, Kernels, Norm, NumbersMut, Operand, PackedMatrix, Room, grow,
    },
    threads::{Member, Turn},
};

/// Weights, packed for the kernels.
pub(crate) struct Encoder {
    pub(super) kernels: Kernels,
    pub(super) precision: Precision,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) head_count: usize,
    /// `[vocabulary × h]`
    pub(super) words: Table,
    /// `[positions × h]`; a text's first token has the first row.
    pub(super) positions: Table,
    pub(super) embedding_norm: Norm,
    pub(super) layers: Vec<Layer>,
    /// Added to every layer's attention scores.
    pub(super) bias: Option<DistanceBias>,
}

pub(super) struct Layer {
    /// h → 3h: queries (scaled by 1/√head width), keys, values.
    pub(super) qkv: PackedMatrix,
    /// h → h
    pub(super) attention_output: PackedMatrix,
    pub(super) attention_norm: Norm,
    /// h → intermediate
    pub(super) feed_forward: PackedMatrix,
    /// intermediate → h
    pub(super) output: PackedMatrix,
    pub(super) output_norm: Norm,
}

/// Buffers of one call, kept for the next.
#[derive(Default)]
pub(crate) struct Workspace {
    /// `[t × h]`, the tokens' vectors.
    x: Vec<f32>,
    /// Two of `[t × 3h]`, in turn: while one layer's are read, the next layer's are written.
    qkv: [SharedRows; 2],
    members: Vec<Scratch>,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// `[rows × h]`, attention's result.
    context: Vec<f32>,
    context_bf16: Room,
    /// `[BLOCK × h]`, after attention.
    y: Vec<f32>,
    /// `[BLOCK × intermediate]`
    wide: Vec<f32>,
    /// Activations in the form of a product, of width h and of the intermediate width.
    narrow_room: Room,
    wide_room: Room,
    attention: Vec<u32>,
}

/// Tokens that go through a layer's products together: their activations stay in the second-level cache, and the
/// weights, which stream by, are used this often.
const BLOCK: usize = 64;
/// Tokens below which another thread is not worth waking.
const LEAST_ROWS: usize = 4;

impl Encoder {
    /// Numbers in a token's vector.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Whether these can be this model's tokens: ids that it has, no more than it has positions for.
    pub(crate) fn reads(&self, text: &Tokens) -> bool {
        let words = self.words.rows();
        text.len() <= self.positions.rows() && text.ids().iter().all(|id| (*id as usize) < words)
    }

    fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.layers
            .iter()
            .flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.feed_forward, &layer.output])
    }

    pub(crate) fn linear_operations_per_token(&self) -> usize {
        self.matrices().map(|matrix| 2 * matrix.inputs * matrix.outputs).sum()
    }

    /// Bytes of weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.matrices().map(PackedMatrix::bytes).sum::<usize>() + self.words.bytes() + self.positions.bytes()
    }

    /// The last layer's token vectors, `[t × h]`, of all texts end to end.
    pub(crate) fn forward<'a>(
        &self,
        turn: &Turn<'_>,
        texts: &[&Tokens],
        work: &'a mut Workspace,
    ) -> &'a [f32] {
        let h = self.hidden;
        let spans = spans(texts);
        let t = spans.last().map_or(0, |span| span.end);
        let members = t.div_ceil(LEAST_ROWS).clamp(1, turn.count());
        grow(&mut work.x, t * h);
        for qkv in &mut work.qkv {
            qkv.fit(self.kernels.attention_form(self.precision, h / self.head_count), t, 3 * h);
        }
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
        turn.team(members, |member| {
            // Every member takes its own part, once.
            let part = parts[member.index].lock().ok().and_then(|mut part| part.take());
            // One that went home without its part would leave the others waiting for ever.
            let (x, scratch) = part.unwrap_or_else(|| unreachable!("a part for each member"));
            let rows = rows[member.index].clone();
            let share = Share { encoder: self, texts, spans: &spans, rows, qkv };
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

/// One thread's share of a call.
struct Share<'a> {
    encoder: &'a Encoder,
    texts: &'a [&'a Tokens],
    spans: &'a [Range<usize>],
    /// The tokens of this thread.
    rows: Range<usize>,
    qkv: &'a [SharedRows; 2],
}

impl Share<'_> {
    /// `x` is `[rows × h]`.
    ///
    /// # Safety
    /// No other share has these rows. `together` is `None` only where no text of these rows is shared, and all members
    /// of the team run their shares.
    unsafe fn run(&self, together: Option<&Member<'_>>, x: &mut [f32], scratch: &mut Scratch) {
        let Encoder { kernels, hidden: h, layers, embedding_norm, .. } = self.encoder;
        grow(&mut scratch.y, BLOCK * h);
        self.embed(x);
        kernels.layer_norm(x, None, embedding_norm);
        for block in blocks(x, *h) {
            // SAFETY: the caller's promise; nobody reads before the first barrier.
            unsafe { self.project(0, &block, &mut scratch.narrow_room) }
        }
        for (index, layer) in layers.iter().enumerate() {
            if let Some(member) = together {
                member.wait();
            }
            // SAFETY: the caller's promise, and all have written this layer's rows before the barrier above.
            unsafe { self.attend(index, scratch) }
            for mut block in blocks(x, *h) {
                self.feed_forward(layer, &mut block, scratch);
                if index + 1 < layers.len() {
                    // SAFETY: this buffer was last read before the barrier above, and is read next behind the next.
                    unsafe { self.project(index + 1, &block, &mut scratch.narrow_room) }
                }
            }
        }
    }

    /// Word plus position embeddings.
    fn embed(&self, x: &mut [f32]) {
        let Encoder { hidden, words, positions, .. } = self.encoder;
        for (text, span) in self.texts.iter().zip(self.spans) {
            for row in common(span, &self.rows) {
                let x = &mut x[(row - self.rows.start) * hidden..][..*hidden];
                words.copy(text.ids()[row - span.start] as usize, x);
                positions.add(row - span.start, x);
            }
        }
    }

    /// Queries, keys and values of layer `index` for some of this thread's tokens.
    ///
    /// # Safety
    /// Nobody else reads or writes these rows of the layer's buffer meanwhile.
    unsafe fn project(&self, index: usize, Block { x, first }: &Block<'_>, room: &mut Room) {
        let Encoder { kernels, precision, hidden, layers, .. } = self.encoder;
        let count = x.len() / hidden;
        let from = self.rows.start + first;
        let x = kernels.prepare(kernels.form(*precision), (x, *hidden), room);
        // SAFETY: the caller's promise.
        let out = unsafe { self.qkv[index % 2].rows_mut(from..from + count) };
        kernels.matmul(x, &layers[index].qkv, out);
    }

    /// Attention of layer `index` for this thread's tokens, into the scratch's context.
    ///
    /// # Safety
    /// Nobody writes the rows of this thread's texts in the layer's buffer meanwhile.
    unsafe fn attend(&self, index: usize, scratch: &mut Scratch) {
        let Encoder { kernels, precision, hidden: h, head_count, bias, .. } = self.encoder;
        let heads = Heads { count: *head_count, width: h / head_count, bias: bias.as_ref() };
        let bf16 = kernels.form(*precision) == Form::Bf16
            && kernels.attention_form(*precision, heads.width) == Form::Bf16;
        let Scratch { context, context_bf16, attention, .. } = scratch;
        let all = self.rows.len();
        if !bf16 {
            grow(context, all * h);
        }
        for span in self.spans {
            let own = common(span, &self.rows);
            if own.is_empty() {
                continue;
            }
            let at = own.start - self.rows.start..own.end - self.rows.start;
            let out = if bf16 {
                context_bf16.bf16(all, *h).slice(at)
            } else {
                NumbersMut::F32 { numbers: &mut context[at.start * h..at.end * h], stride: *h }
            };
            // SAFETY: the caller's promise.
            let qkv = unsafe { self.qkv[index % 2].rows(span.clone()) };
            kernels.attention(Asking { qkv, first: own.start - span.start, heads }, attention, out);
        }
    }

    /// All of a layer behind attention, for some of this thread's tokens.
    fn feed_forward(&self, layer: &Layer, Block { x, first }: &mut Block<'_>, scratch: &mut Scratch) {
        let first = *first;
        let Encoder { kernels, precision, hidden: h, intermediate, head_count, .. } = self.encoder;
        let form = kernels.form(*precision);
        let Scratch { context, context_bf16, y, wide, narrow_room, wide_room, .. } = scratch;
        let rows = x.len() / h;
        let y = &mut y[..rows * h];

        let attended =
            if form == Form::Bf16 && kernels.attention_form(*precision, h / head_count) == Form::Bf16 {
                context_bf16.written(first..first + rows, *h)
            } else {
                kernels.prepare(form, (&context[first * h..(first + rows) * h], *h), narrow_room)
            };
        kernels.matmul(attended, &layer.attention_output, dense(y, *h));
        kernels.layer_norm(y, Some(x), &layer.attention_norm);

        let narrow = kernels.prepare(form, (y, *h), narrow_room);
        let wide: Operand<'_> = if form == Form::Bf16 {
            kernels.matmul(narrow, &layer.feed_forward, wide_room.bf16(rows, *intermediate));
            wide_room.written(0..rows, *intermediate)
        } else {
            grow(wide, rows * intermediate);
            let wide = &mut wide[..rows * intermediate];
            kernels.matmul(narrow, &layer.feed_forward, dense(wide, *intermediate));
            kernels.prepare(form, (wide, *intermediate), wide_room)
        };
        kernels.matmul(wide, &layer.output, dense(x, *h));
        kernels.layer_norm(x, Some(y), &layer.output_norm);
    }
}

/// Rows of f32 that follow each other closely.
fn dense(numbers: &mut [f32], stride: usize) -> NumbersMut<'_> {
    NumbersMut::F32 { numbers, stride }
}

/// Some of a thread's tokens that go through the products together.
struct Block<'a> {
    /// `[rows × h]`
    x: &'a mut [f32],
    /// The first of them, counted from the thread's first.
    first: usize,
}

fn blocks(x: &mut [f32], h: usize) -> impl Iterator<Item = Block<'_>> {
    x.chunks_mut(BLOCK * h).zip((0..).step_by(BLOCK)).map(|(x, first)| Block { x, first })
}

fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::{common, divide};

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
        assert_eq!(common(&(0..5), &(3..9)), 3..5);
        assert_eq!(common(&(3..9), &(0..5)), 3..5);
        assert!(common(&(0..3), &(3..9)).is_empty());
        assert!(common(&(7..9), &(0..3)).is_empty());
    }
}
