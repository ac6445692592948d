//! The forward pass of one thread: takes its tokens through all layers.

use std::ops::Range;

use super::{
    encoder::{Encoder, Layer, LayerNorms},
    shared_buffer::SharedBuffer,
};
use crate::{
    Tokens,
    kernels::{ActivationDtype, AttentionInput, Buffer, Kernels, MatrixMut, Norm, Operand, ensure_len},
    thread_pool::ThreadCtx,
};

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[rows × heads · head width]`, the result of attention.
    context: Vec<f32>,
    context_bf16: Buffer,
    /// `[BLOCK × h]`, a temporary copy or result beside the token vectors.
    y: Vec<f32>,
    /// `[BLOCK × qkv]`, before head norms and rotary positions; then `[BLOCK × h]`, the feed-forward part's result.
    projected: Vec<f32>,
    context_operand: Buffer,
    ffn: FfnScratch,
    attention: Vec<u32>,
}

/// Buffers of the projections and of the feed-forward part.
#[derive(Default)]
struct FfnScratch {
    /// Activations of width h, in the type that the product reads.
    hidden_operand: Buffer,
    /// `[BLOCK × intermediate]`, or twice as wide with a gate.
    wide: Vec<f32>,
    /// `[BLOCK × intermediate]`
    gated: Vec<f32>,
    wide_operand: Buffer,
}

/// Tokens that go through a layer's products together. Their activations stay in the second-level cache, and each
/// weight that is read is used this many times.
const BLOCK: usize = 64;

/// One thread's part of a call.
pub(super) struct ThreadForward<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) texts: &'a [&'a Tokens],
    /// The token range of each text.
    pub(super) spans: &'a [Range<usize>],
    /// The tokens of this thread.
    pub(super) rows: Range<usize>,
    pub(super) qkv: &'a [SharedBuffer; 2],
}

impl ThreadForward<'_> {
    /// Runs all layers on `x`, which is `[rows × h]`. With `sync`, waits for the other threads once per layer.
    ///
    /// # Safety
    /// No other thread has these rows. `sync` is `None` only if no text of these rows is shared with another thread.
    /// All threads of the call run their parts.
    pub(super) unsafe fn run(&self, sync: Option<&ThreadCtx<'_>>, x: &mut [f32], scratch: &mut Scratch) {
        let Encoder { kernels, hidden: h, layers, embedding_norm, final_norm, .. } = self.encoder;
        ensure_len(&mut scratch.y, BLOCK * h);
        self.embed(x);
        if let Some(norm) = embedding_norm {
            kernels.norm(x, None, norm);
        }
        for block in blocks(x, *h) {
            // SAFETY: the caller's promise; no thread reads before the first barrier.
            unsafe { self.project(0, &block, scratch) }
        }
        for (index, layer) in layers.iter().enumerate() {
            if let Some(thread) = sync {
                thread.wait();
            }
            // SAFETY: the caller's promise; all threads have written this layer's rows before the barrier above.
            unsafe { self.attend(index, scratch) }
            for mut block in blocks(x, *h) {
                self.feed_forward_block(layer, &mut block, scratch);
                if index + 1 < layers.len() {
                    // SAFETY: this buffer was last read before the barrier above, and is next read after the next
                    // barrier.
                    unsafe { self.project(index + 1, &block, scratch) }
                }
            }
        }
        if let Some(norm) = final_norm {
            kernels.norm(x, None, norm);
        }
    }

    /// Writes the sum of word and position embeddings to `x`.
    fn embed(&self, x: &mut [f32]) {
        let Encoder { hidden, word_embeddings, position_embeddings, .. } = self.encoder;
        for (text, span) in self.texts.iter().zip(self.spans) {
            for row in overlap(span, &self.rows) {
                let x = &mut x[(row - self.rows.start) * hidden..][..*hidden];
                word_embeddings.copy(text.ids()[row - span.start] as usize, x);
                if let Some(positions) = position_embeddings {
                    positions.add(row - span.start, x);
                }
            }
        }
    }

    /// Computes queries, keys and values of layer `index` for a block of this thread's tokens.
    ///
    /// # Safety
    /// No other thread reads or writes these rows of the layer's buffer during the call.
    unsafe fn project(&self, index: usize, Block { x, first }: &Block<'_>, scratch: &mut Scratch) {
        let Encoder { kernels, precision, hidden, layers, attention_types, .. } = self.encoder;
        let Scratch { y, projected, ffn: FfnScratch { hidden_operand, .. }, .. } = scratch;
        let layer = &layers[index];
        let count = x.len() / hidden;
        let first = self.rows.start + first;
        let x = match &layer.norms {
            LayerNorms::Pre { attention: Some(norm), .. } => normed(kernels, x, norm, y),
            _ => x,
        };
        let x = kernels.prepare(kernels.activation_dtype(*precision), x, *hidden, hidden_operand);
        // SAFETY: the caller's promise.
        let out = unsafe { self.qkv[index % 2].rows_mut(first..first + count) };
        if layer.head_norms.is_none() && attention_types[layer.attention_type].rotary.is_none() {
            kernels.matmul(x, &layer.qkv, out);
            return;
        }
        let width = layer.qkv.outputs;
        ensure_len(projected, count * width);
        let projected = &mut projected[..count * width];
        kernels.matmul(x, &layer.qkv, dense(projected, width));
        self.apply_rope(layer, first, projected);
        kernels.write(projected, width, out);
    }

    /// Normalizes the heads of queries and keys and applies rotary positions. `rows` start with token `first`.
    fn apply_rope(&self, layer: &Layer, first: usize, rows: &mut [f32]) {
        let Encoder { kernels, heads, key_value_heads, head_width, attention_types, .. } = self.encoder;
        let (queries_end, keys_end) = (heads * head_width, (heads + key_value_heads) * head_width);
        let mut text = self.spans.partition_point(|span| span.end <= first);
        for (row, token) in rows.chunks_exact_mut(layer.qkv.outputs).zip(first..) {
            if let Some([query, key]) = &layer.head_norms {
                kernels.norm(&mut row[..queries_end], None, query);
                kernels.norm(&mut row[queries_end..keys_end], None, key);
            }
            if let Some(table) = &attention_types[layer.attention_type].rotary {
                while self.spans[text].end <= token {
                    text += 1;
                }
                kernels.rotate(&mut row[..keys_end], table.row(token - self.spans[text].start));
            }
        }
    }

    /// Computes attention of layer `index` for this thread's tokens into the scratch's context.
    ///
    /// # Safety
    /// No thread writes the rows of this thread's texts in the layer's buffer during the call.
    unsafe fn attend(&self, index: usize, scratch: &mut Scratch) {
        let Encoder { kernels, layers, attention_types, .. } = self.encoder;
        let shape = self.encoder.attention_shape(&attention_types[layers[index].attention_type]);
        let width = shape.heads * shape.head_width;
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
            let rows = own.start - self.rows.start..own.end - self.rows.start;
            let out = if bf16 {
                context_bf16.bf16(all, width).slice(rows)
            } else {
                dense(&mut context[rows.start * width..rows.end * width], width)
            };
            // SAFETY: the caller's promise.
            let qkv = unsafe { self.qkv[index % 2].rows(span.clone()) };
            kernels.attention(AttentionInput { qkv, first: own.start - span.start, shape }, attention, out);
        }
    }

    /// Whether attention writes bf16, so that the output projection reads its result without conversion.
    fn context_is_bf16(&self) -> bool {
        let Encoder { kernels, precision, head_width, .. } = self.encoder;
        kernels.activation_dtype(*precision) == ActivationDtype::Bf16
            && kernels.attention_dtype(*precision, *head_width) == ActivationDtype::Bf16
    }

    /// Computes the rest of a layer after attention, for a block of this thread's tokens.
    fn feed_forward_block(&self, layer: &Layer, Block { x, first }: &mut Block<'_>, scratch: &mut Scratch) {
        let Encoder { kernels, hidden: h, .. } = self.encoder;
        let Scratch { context, context_bf16, context_operand, y, projected, ffn, .. } = scratch;
        let rows = x.len() / h;
        let y = &mut y[..rows * h];
        let attended = self.attended(*first..*first + rows, (context, context_bf16), context_operand);
        kernels.matmul(attended, &layer.attention_output, dense(y, *h));
        match &layer.norms {
            LayerNorms::Post { attention, feed_forward } => {
                kernels.norm(y, Some(x), attention);
                self.feed_forward(layer, (y, x), ffn);
                kernels.norm(x, Some(y), feed_forward);
            }
            LayerNorms::Pre { feed_forward, after, .. } => {
                let [after_attention, after_feed_forward] =
                    after.as_ref().map_or([None; 2], |[a, b]| [Some(a), Some(b)]);
                add(kernels, x, y, after_attention);
                ensure_len(projected, rows * h);
                let out = &mut projected[..rows * h];
                self.feed_forward(layer, (normed(kernels, x, feed_forward, y), out), ffn);
                add(kernels, x, out, after_feed_forward);
            }
        }
    }

    /// The result of attention for some rows, as the operand of the output projection.
    fn attended<'a>(
        &self,
        rows: Range<usize>,
        (context, context_bf16): (&'a [f32], &'a Buffer),
        operand: &'a mut Buffer,
    ) -> Operand<'a> {
        let Encoder { kernels, precision, heads, head_width, .. } = self.encoder;
        let width = heads * head_width;
        if self.context_is_bf16() {
            context_bf16.written(rows, width)
        } else {
            let context = &context[rows.start * width..rows.end * width];
            kernels.prepare(kernels.activation_dtype(*precision), context, width, operand)
        }
    }

    /// Computes the feed-forward part without norms and residual, from x to `out`.
    fn feed_forward(&self, layer: &Layer, (x, out): (&[f32], &mut [f32]), scratch: &mut FfnScratch) {
        let Encoder { kernels, precision, hidden: h, intermediate, glu, .. } = self.encoder;
        let FfnScratch { hidden_operand, wide, gated, wide_operand } = scratch;
        let dtype = kernels.activation_dtype(*precision);
        let rows = x.len() / h;
        let input = kernels.prepare(dtype, x, *h, hidden_operand);
        let activated: Operand<'_> = if let Some(activation) = glu {
            ensure_len(wide, 2 * rows * intermediate);
            ensure_len(gated, rows * intermediate);
            let (wide, gated) = (&mut wide[..2 * rows * intermediate], &mut gated[..rows * intermediate]);
            kernels.matmul(input, &layer.up, dense(wide, 2 * intermediate));
            kernels.glu(*activation, dtype, wide, gated, *intermediate);
            kernels.prepare(dtype, gated, *intermediate, wide_operand)
        } else if dtype == ActivationDtype::Bf16 {
            kernels.matmul(input, &layer.up, wide_operand.bf16(rows, *intermediate));
            wide_operand.written(0..rows, *intermediate)
        } else {
            ensure_len(wide, rows * intermediate);
            let wide = &mut wide[..rows * intermediate];
            kernels.matmul(input, &layer.up, dense(wide, *intermediate));
            kernels.prepare(dtype, wide, *intermediate, wide_operand)
        };
        kernels.matmul(activated, &layer.down, dense(out, *h));
    }
}

/// A normalized copy of x in the buffer `to`.
fn normed<'a>(kernels: &Kernels, x: &[f32], norm: &Norm, to: &'a mut [f32]) -> &'a [f32] {
    let to = &mut to[..x.len()];
    to.copy_from_slice(x);
    kernels.norm(to, None, norm);
    to
}

/// Adds y to x. With a norm, y is normalized first.
fn add(kernels: &Kernels, x: &mut [f32], y: &mut [f32], norm: Option<&Norm>) {
    if let Some(norm) = norm {
        kernels.norm(y, None, norm);
    }
    x.iter_mut().zip(&*y).for_each(|(x, y)| *x += y);
}

/// A matrix of f32 rows of `width` without gaps.
fn dense(values: &mut [f32], width: usize) -> MatrixMut<'_> {
    MatrixMut::F32 { values, stride: width }
}

/// Tokens of a thread that go through the products together.
struct Block<'a> {
    /// `[rows × h]`
    x: &'a mut [f32],
    /// Index of the first row among the thread's rows.
    first: usize,
}

fn blocks(x: &mut [f32], h: usize) -> impl Iterator<Item = Block<'_>> {
    x.chunks_mut(BLOCK * h).zip((0..).step_by(BLOCK)).map(|(x, first)| Block { x, first })
}

/// The intersection of two ranges; an empty range, never a reversed one, if they are disjoint.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn the_overlap_of_disjoint_ranges_is_empty() {
        assert_eq!(overlap(&(0..5), &(3..9)), 3..5);
        assert_eq!(overlap(&(3..9), &(0..5)), 3..5);
        assert!(overlap(&(0..3), &(3..9)).is_empty());
        assert!(overlap(&(7..9), &(0..3)).is_empty());
    }
}
