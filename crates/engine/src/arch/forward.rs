//! One thread's part of a call: its tokens through all layers.

use std::ops::Range;

use super::{
    encoder::{Encoder, Layer, LayerNorms, overlap},
    shared_buffer::SharedBuffer,
};
use crate::{
    Tokens,
    kernels::{ActivationDtype, AttentionInput, Buffer, Kernels, Norm, NumbersMut, Operand, ensure_len},
    thread_pool::ThreadCtx,
};

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[rows × heads together]`, attention's result.
    context: Vec<f32>,
    context_bf16: Buffer,
    /// `[BLOCK × h]`, beside the tokens' vectors.
    y: Vec<f32>,
    /// `[BLOCK × qkv]`, before heads are normalised and turned; then `[BLOCK × h]`, the feed-forward part's result.
    projected: Vec<f32>,
    context_room: Buffer,
    products: FfnScratch,
    attention: Vec<u32>,
}

/// Buffers of products of the tokens' own width and of the feed-forward part.
#[derive(Default)]
struct FfnScratch {
    /// Activations of width h in the form of a product.
    narrow_room: Buffer,
    /// `[BLOCK × intermediate]`, or twice that.
    wide: Vec<f32>,
    /// `[BLOCK × intermediate]`
    gated: Vec<f32>,
    wide_room: Buffer,
}

/// Tokens that go through a layer's products together: their activations stay in the second-level cache, and the
/// weights, which stream by, are used this often.
const BLOCK: usize = 64;

/// One thread's share of a call.
pub(super) struct ThreadForward<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) texts: &'a [&'a Tokens],
    /// Where each text's tokens lie.
    pub(super) spans: &'a [Range<usize>],
    /// The tokens of this thread.
    pub(super) rows: Range<usize>,
    pub(super) qkv: &'a [SharedBuffer; 2],
}

impl ThreadForward<'_> {
    /// `x` is `[rows × h]`.
    ///
    /// # Safety
    /// No other share has these rows. `together` is `None` only where no text of these rows is shared, and all members
    /// of the team run their shares.
    pub(super) unsafe fn run(&self, together: Option<&ThreadCtx<'_>>, x: &mut [f32], scratch: &mut Scratch) {
        let Encoder { kernels, hidden: h, layers, embedding_norm, final_norm, .. } = self.encoder;
        ensure_len(&mut scratch.y, BLOCK * h);
        self.embed(x);
        if let Some(norm) = embedding_norm {
            kernels.norm(x, None, norm);
        }
        for block in blocks(x, *h) {
            // SAFETY: the caller's promise; nobody reads before the first barrier.
            unsafe { self.project(0, &block, scratch) }
        }
        for (index, layer) in layers.iter().enumerate() {
            if let Some(member) = together {
                member.wait();
            }
            // SAFETY: the caller's promise, and all have written this layer's rows before the barrier above.
            unsafe { self.attend(index, scratch) }
            for mut block in blocks(x, *h) {
                self.feed_forward_block(layer, &mut block, scratch);
                if index + 1 < layers.len() {
                    // SAFETY: this buffer was last read before the barrier above, and is read next behind the next.
                    unsafe { self.project(index + 1, &block, scratch) }
                }
            }
        }
        if let Some(norm) = final_norm {
            kernels.norm(x, None, norm);
        }
    }

    /// Word plus position embeddings.
    fn embed(&self, x: &mut [f32]) {
        let Encoder { hidden, words, positions, .. } = self.encoder;
        for (text, span) in self.texts.iter().zip(self.spans) {
            for row in overlap(span, &self.rows) {
                let x = &mut x[(row - self.rows.start) * hidden..][..*hidden];
                words.copy(text.ids()[row - span.start] as usize, x);
                if let Some(positions) = positions {
                    positions.add(row - span.start, x);
                }
            }
        }
    }

    /// Queries, keys and values of layer `index` for some of this thread's tokens.
    ///
    /// # Safety
    /// Nobody else reads or writes these rows of the layer's buffer meanwhile.
    unsafe fn project(&self, index: usize, Block { x, first }: &Block<'_>, scratch: &mut Scratch) {
        let Encoder { kernels, precision, hidden, layers, kinds, .. } = self.encoder;
        let Scratch { y, projected, products: FfnScratch { narrow_room, .. }, .. } = scratch;
        let layer = &layers[index];
        let count = x.len() / hidden;
        let from = self.rows.start + first;
        let x = match &layer.norms {
            LayerNorms::Pre { attention: Some(norm), .. } => normed(kernels, x, norm, y),
            _ => x,
        };
        let x = kernels.prepare(kernels.form(*precision), (x, *hidden), narrow_room);
        // SAFETY: the caller's promise.
        let out = unsafe { self.qkv[index % 2].rows_mut(from..from + count) };
        if layer.head_norms.is_none() && kinds[layer.kind].angles.is_none() {
            kernels.matmul(x, &layer.qkv, out);
            return;
        }
        let width = layer.qkv.outputs;
        ensure_len(projected, count * width);
        let projected = &mut projected[..count * width];
        kernels.matmul(x, &layer.qkv, dense(projected, width));
        self.apply_rope(layer, from, projected);
        kernels.write((projected, width), out);
    }

    /// Normalises the heads of queries and keys and turns them by their positions. `rows` begin with token `from`.
    fn apply_rope(&self, layer: &Layer, from: usize, rows: &mut [f32]) {
        let Encoder { kernels, heads, key_value_heads, head_width, kinds, .. } = self.encoder;
        let (queries, both) = (heads * head_width, (heads + key_value_heads) * head_width);
        let mut text = self.spans.partition_point(|span| span.end <= from);
        for (row, token) in rows.chunks_exact_mut(layer.qkv.outputs).zip(from..) {
            if let Some([query, key]) = &layer.head_norms {
                kernels.norm(&mut row[..queries], None, query);
                kernels.norm(&mut row[queries..both], None, key);
            }
            if let Some(angles) = &kinds[layer.kind].angles {
                while self.spans[text].end <= token {
                    text += 1;
                }
                kernels.rotate(&mut row[..both], angles.at(token - self.spans[text].start));
            }
        }
    }

    /// Attention of layer `index` for this thread's tokens, into the scratch's context.
    ///
    /// # Safety
    /// Nobody writes the rows of this thread's texts in the layer's buffer meanwhile.
    unsafe fn attend(&self, index: usize, scratch: &mut Scratch) {
        let Encoder { kernels, layers, kinds, .. } = self.encoder;
        let heads = self.encoder.heads(&kinds[layers[index].kind]);
        let width = heads.count * heads.width;
        let bf16 = self.context_is_bf16();
        let Scratch { context, context_bf16, attention, .. } = scratch;
        let all = self.rows.len();
        if !bf16 {
            ensure_len(context, all * width);
        }
        for span in self.spans {
            let own = overlap(span, &self.rows);
            if own.is_empty() {
                continue;
            }
            let at = own.start - self.rows.start..own.end - self.rows.start;
            let out = if bf16 {
                context_bf16.bf16(all, width).slice(at)
            } else {
                dense(&mut context[at.start * width..at.end * width], width)
            };
            // SAFETY: the caller's promise.
            let qkv = unsafe { self.qkv[index % 2].rows(span.clone()) };
            kernels.attention(AttentionInput { qkv, first: own.start - span.start, heads }, attention, out);
        }
    }

    /// Whether attention writes what the product behind it reads.
    fn context_is_bf16(&self) -> bool {
        let Encoder { kernels, precision, head_width, .. } = self.encoder;
        kernels.form(*precision) == ActivationDtype::Bf16
            && kernels.attention_form(*precision, *head_width) == ActivationDtype::Bf16
    }

    /// All of a layer behind attention, for some of this thread's tokens.
    fn feed_forward_block(&self, layer: &Layer, Block { x, first }: &mut Block<'_>, scratch: &mut Scratch) {
        let Encoder { kernels, hidden: h, .. } = self.encoder;
        let Scratch { context, context_bf16, context_room, y, projected, products, .. } = scratch;
        let rows = x.len() / h;
        let y = &mut y[..rows * h];
        let attended = self.attended(*first..*first + rows, (context, context_bf16), context_room);
        kernels.matmul(attended, &layer.attention_output, dense(y, *h));
        match &layer.norms {
            LayerNorms::Post { attention, feed_forward } => {
                kernels.norm(y, Some(x), attention);
                self.feed_forward(layer, (y, x), products);
                kernels.norm(x, Some(y), feed_forward);
            }
            LayerNorms::Pre { feed_forward, behind, .. } => {
                let [after_attention, after_feed_forward] =
                    behind.as_ref().map_or([None; 2], |[a, b]| [Some(a), Some(b)]);
                add(kernels, x, y, after_attention);
                ensure_len(projected, rows * h);
                let out = &mut projected[..rows * h];
                self.feed_forward(layer, (normed(kernels, x, feed_forward, y), out), products);
                add(kernels, x, out, after_feed_forward);
            }
        }
    }

    /// Attention's result for a block, as a product reads it.
    fn attended<'a>(
        &self,
        rows: Range<usize>,
        (context, context_bf16): (&'a [f32], &'a Buffer),
        room: &'a mut Buffer,
    ) -> Operand<'a> {
        let Encoder { kernels, precision, heads, head_width, .. } = self.encoder;
        let width = heads * head_width;
        if self.context_is_bf16() {
            context_bf16.written(rows, width)
        } else {
            let context = &context[rows.start * width..rows.end * width];
            kernels.prepare(kernels.form(*precision), (context, width), room)
        }
    }

    /// The feed-forward part alone, of x into `out`.
    fn feed_forward(&self, layer: &Layer, (x, out): (&[f32], &mut [f32]), products: &mut FfnScratch) {
        let Encoder { kernels, precision, hidden: h, intermediate, gate, .. } = self.encoder;
        let FfnScratch { narrow_room, wide, gated, wide_room } = products;
        let form = kernels.form(*precision);
        let rows = x.len() / h;
        let narrow = kernels.prepare(form, (x, *h), narrow_room);
        let activated: Operand<'_> = if let Some(gate) = gate {
            ensure_len(wide, 2 * rows * intermediate);
            ensure_len(gated, rows * intermediate);
            let (wide, gated) = (&mut wide[..2 * rows * intermediate], &mut gated[..rows * intermediate]);
            kernels.matmul(narrow, &layer.up, dense(wide, 2 * intermediate));
            kernels.gate(*gate, form, (wide, gated, *intermediate));
            kernels.prepare(form, (gated, *intermediate), wide_room)
        } else if form == ActivationDtype::Bf16 {
            kernels.matmul(narrow, &layer.up, wide_room.bf16(rows, *intermediate));
            wide_room.written(0..rows, *intermediate)
        } else {
            ensure_len(wide, rows * intermediate);
            let wide = &mut wide[..rows * intermediate];
            kernels.matmul(narrow, &layer.up, dense(wide, *intermediate));
            kernels.prepare(form, (wide, *intermediate), wide_room)
        };
        kernels.matmul(activated, &layer.down, dense(out, *h));
    }
}

/// x, normalised, in a buffer of its own.
fn normed<'a>(kernels: &Kernels, x: &[f32], norm: &Norm, to: &'a mut [f32]) -> &'a [f32] {
    let to = &mut to[..x.len()];
    to.copy_from_slice(x);
    kernels.norm(to, None, norm);
    to
}

/// Adds y to x, normalised first where there is a norm for that.
fn add(kernels: &Kernels, x: &mut [f32], y: &mut [f32], norm: Option<&Norm>) {
    if let Some(norm) = norm {
        kernels.norm(y, None, norm);
    }
    x.iter_mut().zip(&*y).for_each(|(x, y)| *x += y);
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
