//! The forward pass of a batch: divides its tokens among the threads and runs them.
//!
//! All texts of a call are concatenated, `t` tokens in total, without padding. Every linear layer is a matrix product
//! over tokens; only attention works text by text. The tokens are divided evenly among the threads, also inside a
//! text, so one long text uses all threads. A thread takes its tokens through a whole layer while they are in its
//! cache. It waits for the other threads once per layer, when the queries, keys and values of all tokens exist. `h` is
//! the hidden size.

use std::ops::Range;

use super::{
    encoder::Encoder,
    forward::{Scratch, ThreadForward},
    shared_buffer::SharedBuffer,
};
use crate::{Tokens, kernels::ensure_len, thread_pool::PoolGuard};

/// Buffers of one call, reused by later calls.
#[derive(Default)]
pub(crate) struct Workspace {
    /// `[t × h]`, the token vectors.
    x: Vec<f32>,
    /// Two alternating buffers for the queries, keys and values of all tokens: one layer's are read while the next
    /// layer's are written.
    qkv: [SharedBuffer; 2],
    scratch: Vec<Scratch>,
}

/// Minimum tokens per thread. Waking a thread for fewer tokens costs more than it saves.
const MIN_ROWS_PER_THREAD: usize = 4;

impl Encoder {
    /// Computes the last layer's token vectors, `[t × h]`, of all texts in order.
    pub(crate) fn forward<'a>(
        &self,
        pool: &PoolGuard<'_>,
        texts: &[&Tokens],
        workspace: &'a mut Workspace,
    ) -> &'a [f32] {
        let h = self.hidden;
        let spans = spans(texts);
        let t = spans.last().map_or(0, |span| span.end);
        let threads = t.div_ceil(MIN_ROWS_PER_THREAD).clamp(1, pool.count());
        ensure_len(&mut workspace.x, t * h);
        let dtype = self.kernels.attention_dtype(self.precision, self.head_width);
        let width = (self.heads + 2 * self.key_value_heads) * self.head_width;
        workspace.qkv.iter_mut().for_each(|qkv| qkv.resize(dtype, t, width));
        if workspace.scratch.len() < threads {
            workspace.scratch.resize_with(threads, Scratch::default);
        }
        let (rows, independent) = divide(&spans, threads);
        let mut parts = Vec::with_capacity(threads);
        let mut rest = &mut workspace.x[..t * h];
        for (thread, scratch) in workspace.scratch.iter_mut().enumerate().take(threads) {
            let (own, others) = rest.split_at_mut(rows[thread].len() * h);
            parts.push(std::sync::Mutex::new(Some((own, scratch))));
            rest = others;
        }
        let qkv = &workspace.qkv;
        pool.run_on(threads, |thread| {
            // Every thread takes its own part, once.
            let part = parts[thread.index].lock().ok().and_then(|mut part| part.take());
            // A thread that returned without its part would leave the others waiting at the barrier forever.
            let (x, scratch) = part.unwrap_or_else(|| unreachable!("a part for each thread"));
            let rows = rows[thread.index].clone();
            let forward = ThreadForward { encoder: self, texts, spans: &spans, rows, qkv };
            // SAFETY: `divide` gives every token to exactly one thread, and returns `independent` only when every
            // border between two threads is a border between two texts.
            unsafe { forward.run((!independent).then_some(thread), x, scratch) }
        });
        drop(parts);
        &workspace.x[..t * h]
    }
}

/// The token range of each text.
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

/// Divides the tokens among the threads. Borders lie between texts where that is nearly even; then the second value is
/// true, no text is shared, and no thread has to wait for another. Otherwise the division is even.
fn divide(spans: &[Range<usize>], threads: usize) -> (Vec<Range<usize>>, bool) {
    let t = spans.last().map_or(0, |span| span.end);
    let even = |thread: usize| t * thread / threads;
    let text_border = |thread: usize| {
        let next = spans.partition_point(|span| span.end < even(thread));
        let span = &spans[next.min(spans.len() - 1)];
        let nearest = if even(thread) - span.start < span.end - even(thread) { span.start } else { span.end };
        (nearest.abs_diff(even(thread)) * threads * IMBALANCE_DIVISOR <= t).then_some(nearest)
    };
    let borders: Option<Vec<usize>> = (1..threads).map(text_border).collect();
    let independent = borders.is_some();
    let borders = borders.unwrap_or_else(|| (1..threads).map(even).collect());
    let starts = std::iter::once(0).chain(borders.iter().copied());
    let ends = borders.iter().copied().chain([t]);
    (starts.zip(ends).map(|(start, end)| start..end).collect(), independent)
}

/// A border may move by this fraction (1/n) of a thread's tokens to lie between texts. Waiting at barriers costs more
/// than this imbalance, in particular on a machine with other work.
const IMBALANCE_DIVISOR: usize = 12;

#[cfg(test)]
mod tests {
    use super::divide;

    #[expect(clippy::single_range_in_vec_init, reason = "one text is one range")]
    #[test]
    fn tokens_are_divided_between_texts_where_that_is_nearly_even() {
        assert_eq!(divide(&[0..10, 10..20], 2), (vec![0..10, 10..20], true));
        assert_eq!(divide(&[0..48, 48..52, 52..100], 2), (vec![0..52, 52..100], true));
        assert_eq!(divide(&[0..100], 2), (vec![0..50, 50..100], false));
        assert_eq!(divide(&[0..30, 30..100], 2), (vec![0..50, 50..100], false));
        assert_eq!(divide(&[0..7], 1), (vec![0..7], true));
        let texts: Vec<_> = (0..300).map(|i| i * 3..i * 3 + 3).collect();
        let (rows, independent) = divide(&texts, 4);
        assert!(independent && rows[0].start == 0 && rows[3].end == 900);
        assert!(rows.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
