//! Softmax attention within one text. Each query attends to the keys in its window; without padding, that is usually
//! the whole text.
//!
//! For each head, keys and values are packed like the weights of a product. Then scores, softmax and the weighted sum
//! of values are computed for a few query rows at a time, while all operands are in cache. Keys outside the window of
//! all these rows are skipped. Scores are computed in the type of queries and keys, f32 or bf16. Softmax is always in
//! f32.

use std::ops::Range;

use super::{
    MatrixRef,
    matmul::{Operands, accumulate, tiles},
    simd::{AsF32, Simd, Store, load_up_to},
    tile::{Columns, MAX_ROWS, MicroKernel},
};

/// Vectors of keys, or of value columns, per tile.
const VECTORS: usize = 2;

/// The arguments of attention for some rows of one text. Built by [`super::Kernels::attention`], which checks the
/// lengths.
#[derive(Clone, Copy)]
pub(crate) struct AttentionArgs<'a> {
    /// Tokens of the text.
    pub(super) tokens: usize,
    /// The queries are the tokens `first..first + rows`.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) shape: AttentionShape<'a>,
    /// `tokens` rows of queries (already scaled), keys and values, in the type of the entry point.
    pub(super) qkv: *const u8,
    /// Values from one row to the next.
    pub(super) qkv_stride: usize,
    /// `rows` rows of `heads × head width`, f32 or bf16 depending on the entry point.
    pub(super) out: *mut u8,
    /// Values from one row to the next.
    pub(super) out_stride: usize,
    /// [`scratch_len`] words.
    pub(super) scratch: *mut u32,
}

/// The input of attention for the tokens of one text from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct AttentionInput<'a> {
    /// One row per token of the text: scaled queries, keys, values.
    pub(crate) qkv: MatrixRef<'a>,
    pub(crate) first: usize,
    pub(crate) shape: AttentionShape<'a>,
}

/// The layout of a row of queries, keys and values, with the window and the bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape<'a> {
    /// Query heads.
    pub(crate) heads: usize,
    /// Heads of keys and of values. Divides `heads`; each serves `heads / key_value_heads` consecutive query heads.
    pub(crate) key_value_heads: usize,
    pub(crate) head_width: usize,
    pub(crate) window: AttentionWindow,
    /// Added to every score, if the model has such a bias.
    pub(crate) bias: Option<&'a DistanceBias>,
}

impl AttentionShape<'_> {
    /// Length of a row of queries, keys and values.
    pub(crate) fn row_len(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_width
    }
}

/// The keys that a query attends to: this many tokens before and after it, and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionWindow {
    pub(crate) back: usize,
    pub(crate) ahead: usize,
}

impl AttentionWindow {
    /// The whole text.
    pub(crate) const ALL: Self = Self { back: usize::MAX, ahead: usize::MAX };
    /// Causal attention: the token and all tokens before it.
    pub(crate) const CAUSAL: Self = Self { back: usize::MAX, ahead: 0 };

    /// The same distance in both directions.
    pub(crate) const fn symmetric(distance: usize) -> Self {
        Self { back: distance, ahead: distance }
    }

    /// The union of the keys that the tokens from `first` to `last` attend to.
    #[inline(always)]
    fn visible_keys(self, first: usize, last: usize, tokens: usize) -> Range<usize> {
        first.saturating_sub(self.back)..last.saturating_add(self.ahead).saturating_add(1).min(tokens)
    }
}

/// A bias that depends on the head and on the distance from query to key.
#[derive(Debug)]
pub(crate) struct DistanceBias {
    /// `[heads × (2·max_tokens - 1)]`; the bias of key j and query i is at `j - i + max_tokens - 1`.
    pub(crate) values: Vec<f32>,
    /// Maximum tokens of a text.
    pub(crate) max_tokens: usize,
}

/// Words of scratch memory for a text, with vectors of `lanes`: packed keys, packed values, scores, weights.
pub(super) fn scratch_len(tokens: usize, head_width: usize, lanes: usize) -> usize {
    let keys = tokens.next_multiple_of(VECTORS * lanes);
    keys * head_width + (keys + 1) * head_width.next_multiple_of(lanes) + 2 * MAX_ROWS * keys
}

/// The packed operands and the buffers of one head.
#[derive(Clone, Copy)]
struct HeadBuffers {
    /// `[key panels][steps][panel]` groups.
    keys: *const u8,
    /// `[steps of tokens][padded head]` groups.
    values: *const u8,
    scores: *mut f32,
    /// The softmax weights before division by their sum.
    weights: *mut u8,
    padded_keys: usize,
    padded_head: usize,
    index: usize,
}

/// Computes attention. `S` stores the type that `T` multiplies; `O` stores the results.
///
/// # Safety
/// As [`Simd`]; the buffers are as [`AttentionArgs`] says; `S` stores what `T` multiplies, a group of `T` divides the
/// head width; `O` is the type of `out`.
#[inline(always)]
pub(super) unsafe fn run<T, S, O>(args: &AttentionArgs<'_>)
where
    T: MicroKernel,
    S: Store<T::Simd>,
    O: Store<T::Simd>,
{
    const { assert!(T::ROWS <= MAX_ROWS, "the arms below cover all tiles") }
    let AttentionArgs { tokens, shape: AttentionShape { heads, key_value_heads, head_width, .. }, .. } =
        *args;
    let lanes = T::Simd::WIDTH;
    let padded_keys = tokens.next_multiple_of(VECTORS * lanes);
    let padded_head = head_width.next_multiple_of(lanes);
    let element = size_of::<S::Element>();
    // SAFETY: the parts of the scratch memory follow each other as `scratch_len` counts them; every head's slice of a
    // token's queries, keys and values lies inside its row.
    unsafe {
        let keys = args.scratch.cast::<u8>();
        let values = keys.add(4 * padded_keys * head_width);
        let scores = values.add(4 * (padded_keys + 1) * padded_head);
        let weights = scores.add(4 * MAX_ROWS * padded_keys);
        let group = heads / key_value_heads;
        for index in 0..heads {
            if index % group == 0 {
                let key = args.qkv.add((heads + index / group) * head_width * element);
                let value = key.add(key_value_heads * head_width * element);
                pack_keys::<T>(args, key, args.qkv_stride * element, keys);
                pack_values::<T, S>(args, value, values);
            }
            let head = HeadBuffers {
                keys,
                values,
                scores: scores.cast(),
                // f32 weights overwrite the scores.
                weights: if element == 4 { scores } else { weights },
                padded_keys,
                padded_head,
                index,
            };
            for (first, rows) in tiles(args.rows, T::ROWS) {
                match rows {
                    1 => attend::<T, S, O, 1>(args, head, first),
                    2 => attend::<T, S, O, 2>(args, head, first),
                    3 => attend::<T, S, O, 3>(args, head, first),
                    4 => attend::<T, S, O, 4>(args, head, first),
                    5 => attend::<T, S, O, 5>(args, head, first),
                    6 => attend::<T, S, O, 6>(args, head, first),
                    7 => attend::<T, S, O, 7>(args, head, first),
                    _ => attend::<T, S, O, MAX_ROWS>(args, head, first),
                }
            }
        }
    }
}

/// Transposes keys to columns, in panels. A group of a key's values is one word. Columns after the last key are not
/// initialized and their scores are never read.
///
/// # Safety
/// As [`run`]; `key` points to the first token's.
#[inline(always)]
unsafe fn pack_keys<T: MicroKernel>(args: &AttentionArgs<'_>, key: *const u8, stride: usize, to: *mut u8) {
    const { assert!(T::GROUP_BYTES == 4 && T::WEIGHT_BYTES == 4) };
    let (lanes, panel) = (T::Simd::WIDTH, VECTORS * T::Simd::WIDTH);
    let steps = args.shape.head_width / T::DEPTH;
    let to = to.cast::<f32>();
    for first in (0..args.tokens).step_by(lanes) {
        let rows = lanes.min(args.tokens - first);
        // SAFETY: reads are inside the tokens' keys, writes inside the panel.
        unsafe {
            let key = key.add(first * stride);
            let to = to.add(first / panel * panel * steps + first % panel);
            let whole = steps / lanes * lanes;
            for step in (0..whole).step_by(lanes) {
                let (key, to) = (key.add(4 * step), to.add(step * panel));
                match lanes {
                    16 => transpose::<T::Simd, 16>((key, stride, rows), (to, panel)),
                    8 => transpose::<T::Simd, 8>((key, stride, rows), (to, panel)),
                    _ => transpose::<T::Simd, 4>((key, stride, rows), (to, panel)),
                }
            }
            for step in whole..steps {
                for token in 0..rows {
                    let word = key.add(token * stride + 4 * step).cast::<f32>().read_unaligned();
                    to.add(step * panel + token).write(word);
                }
            }
        }
    }
}

/// Transposes a square of words: up to `WIDTH` rows of `WIDTH` words.
///
/// # Safety
/// As [`Simd`], which has `WIDTH` lanes; `row_count` rows, `stride` bytes apart, are valid for a vector, and so
/// are `WIDTH` vectors of the result, `panel` words apart.
#[inline(always)]
unsafe fn transpose<L: Simd, const WIDTH: usize>(
    (from, stride, row_count): (*const u8, usize, usize),
    (to, panel): (*mut f32, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [L::splat(0.0); WIDTH];
        for (row, vector) in rows.iter_mut().enumerate() {
            // Missing rows repeat the last row, which avoids a branch. Their columns are never read.
            *vector = L::load(from.add(row.min(row_count - 1) * stride).cast());
        }
        exchange::<L, WIDTH, 1>(&mut rows);
        exchange::<L, WIDTH, 2>(&mut rows);
        if WIDTH > 4 {
            exchange::<L, WIDTH, 4>(&mut rows);
        }
        if WIDTH > 8 {
            exchange::<L, WIDTH, 8>(&mut rows);
        }
        for (row, vector) in rows.into_iter().enumerate() {
            vector.store(to.add(row * panel));
        }
    }
}

/// One step of a transposition: exchanges one bit of the row index with the same bit of the lane index.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn exchange<L: Simd, const WIDTH: usize, const DISTANCE: usize>(rows: &mut [L; WIDTH]) {
    for i in 0..WIDTH {
        if i & DISTANCE == 0 {
            let (a, b) = (rows[i], rows[i + DISTANCE]);
            // SAFETY: the caller's promise.
            unsafe {
                rows[i] = a.select::<DISTANCE>(b.butterfly::<DISTANCE>());
                rows[i + DISTANCE] = a.butterfly::<DISTANCE>().select::<DISTANCE>(b);
            }
        }
    }
}

/// Packs values as rows. The rows of `DEPTH` tokens are interleaved, with zeros after the last token.
///
/// # Safety
/// As [`run`]; `value` points to the first token's.
#[inline(always)]
unsafe fn pack_values<T: MicroKernel, S: Store<T::Simd>>(
    args: &AttentionArgs<'_>,
    value: *const u8,
    to: *mut u8,
) {
    const { assert!(T::DEPTH * size_of::<S::Element>() == 4) };
    let AttentionArgs { tokens, qkv_stride, shape: AttentionShape { head_width, .. }, .. } = *args;
    let padded = head_width.next_multiple_of(T::Simd::WIDTH);
    for first in (0..tokens).step_by(T::DEPTH) {
        // SAFETY: a token's value lies in its row of `qkv`; the padded row, a word per column, lies in the scratch
        // memory.
        unsafe {
            let to =
                std::slice::from_raw_parts_mut(to.cast::<u32>().add(first / T::DEPTH * padded), head_width);
            if T::DEPTH == 1 {
                let row = value.cast::<u32>().add(first * qkv_stride);
                to.copy_from_slice(std::slice::from_raw_parts(row, head_width));
                continue;
            }
            let row = value.cast::<u16>().add(first * qkv_stride);
            let even = std::slice::from_raw_parts(row, head_width);
            if first + 1 < tokens {
                let odd = std::slice::from_raw_parts(row.add(qkv_stride), head_width);
                for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
                    *to = u32::from(*even) | u32::from(*odd) << 16;
                }
            } else {
                to.iter_mut().zip(even).for_each(|(to, even)| *to = u32::from(*even));
            }
        }
    }
}

/// Computes attention of one head for `ROWS` query rows.
///
/// # Safety
/// As [`run`]; `ROWS` query rows from `first` exist.
#[inline(always)]
unsafe fn attend<T, S, O, const ROWS: usize>(args: &AttentionArgs<'_>, head: HeadBuffers, first: usize)
where
    T: MicroKernel,
    S: Store<T::Simd>,
    O: Store<T::Simd>,
{
    let AttentionArgs { tokens, shape: AttentionShape { heads, head_width, window, bias, .. }, .. } = *args;
    let lanes = T::Simd::WIDTH;
    let panel = VECTORS * lanes;
    let element = size_of::<S::Element>();
    let token = args.first + first;
    // The keys in the window of any of these rows, from the start of a panel on.
    let Range { start, end } = window.visible_keys(token, token + ROWS - 1, tokens);
    let start = start / panel * panel;
    // SAFETY: the caller's promise is passed on; partial stores stay inside the head's columns.
    unsafe {
        let queries = args.qkv.add((token * args.qkv_stride + head.index * head_width) * element);
        let neg_infinity = T::Simd::splat(f32::NEG_INFINITY);
        let mut max_scores = [neg_infinity; ROWS];
        for key in (start..end).step_by(panel) {
            let operands = Operands {
                a: queries,
                a_stride: args.qkv_stride * element,
                b: head.keys.add(4 * key * (head_width / T::DEPTH)),
                b_stride: 4 * panel,
                steps: head_width / T::DEPTH,
            };
            let sums = accumulate::<T, ROWS, VECTORS>(operands);
            for (row, vectors) in sums.into_iter().enumerate() {
                for (vector, sum) in vectors.into_iter().enumerate() {
                    let at = key + vector * lanes;
                    let score = T::finish(sum, NO_BIAS, 1.0);
                    score.store(head.scores.add(row * head.padded_keys + at));
                    // Lanes after the last key are excluded.
                    let valid = if tokens >= at + lanes {
                        score
                    } else {
                        score.keep_first(tokens.saturating_sub(at), neg_infinity)
                    };
                    max_scores[row] = max_scores[row].max(valid);
                }
            }
        }
        let mut scales = [0.0; ROWS];
        for (row, scale) in scales.iter_mut().enumerate() {
            let at = row * head.padded_keys;
            let scores = head.scores.add(at);
            if let Some(DistanceBias { values, max_tokens }) = bias {
                let first_key = head.index * (2 * max_tokens - 1) + max_tokens - 1 - (token + row);
                let values = values.as_ptr().add(first_key + start);
                max_scores[row] = add_bias::<T::Simd>(scores.add(start), values, end - start);
            }
            let weights = head.weights.cast::<S::Element>().add(at);
            *scale = 1.0
                / if window == AttentionWindow::ALL {
                    exponentials::<T, S>((scores, tokens), weights, max_scores[row].reduce_max())
                } else {
                    let visible = window.visible_keys(token + row, token + row, tokens);
                    windowed_exponentials::<T, S>((scores, start..end, visible), weights)
                };
        }
        let mut at = 0;
        while at < head_width {
            let operands = Operands {
                a: head.weights.add(start * element),
                a_stride: head.padded_keys * element,
                b: head.values.add(4 * (start / T::DEPTH * head.padded_head + at)),
                b_stride: 4 * head.padded_head,
                steps: (end - start).div_ceil(T::DEPTH),
            };
            let column = first * args.out_stride + head.index * head_width + at;
            let out = args.out.cast::<O::Element>().add(column);
            let tile = OutputTile { out, stride: args.out_stride, left: head_width - at };
            if head.padded_head - at >= panel {
                weighted_sum::<T, O, ROWS, VECTORS>(operands, tile, &scales);
                at += panel;
            } else {
                weighted_sum::<T, O, ROWS, 1>(operands, tile, &scales);
                at += lanes;
            }
        }
        debug_assert!(head.index < heads);
    }
}

/// The columns of attention's products, which have no bias and no scales.
const NO_BIAS: Columns =
    Columns { bias: ZEROS.as_ptr(), scales: std::ptr::null(), offsets: std::ptr::null() };
const ZEROS: &[f32; 16] = &[0.0; 16];

/// Computes `x += y` and returns the largest sum of each lane.
///
/// # Safety
/// As [`Simd`]; both are valid for `width` floats.
#[inline(always)]
unsafe fn add_bias<L: Simd>(x: *mut f32, y: *const f32, width: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let neg_infinity = L::splat(f32::NEG_INFINITY);
        let mut max = neg_infinity;
        for at in (0..width).step_by(L::WIDTH) {
            let left = width - at;
            let sum = load_up_to::<L>(x.add(at), left).add(load_up_to::<L>(y.add(at), left));
            AsF32::store_up_to(sum, x.add(at), left);
            max = max.max(sum.keep_first(left.min(L::WIDTH), neg_infinity));
        }
        max
    }
}

/// Writes e^(x - max) of a row of `width` values and returns their sum. The largest result is 1, so nothing overflows.
/// The rest of the last vector is filled with zeros.
///
/// # Safety
/// As [`Simd`]; `x` is valid for `width` floats, at least one, and for the rest of its last vector; `to` for
/// as many values.
#[inline(always)]
unsafe fn exponentials<T: MicroKernel, S: Store<T::Simd>>(
    (x, width): (*const f32, usize),
    to: *mut S::Element,
    max: f32,
) -> f32 {
    let lanes = T::Simd::WIDTH;
    // SAFETY: inside the row, by the caller's promise.
    unsafe {
        let max = T::Simd::splat(max);
        let zero = T::Simd::splat(0.0);
        let mut sum = zero;
        let whole = width / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            let value = T::exp(T::Simd::load(x.add(at)).sub(max));
            S::store_up_to(value, to.add(at), lanes);
            sum = sum.add(value);
        }
        if whole < width {
            let value = T::exp(T::Simd::load(x.add(whole)).sub(max)).keep_first(width - whole, zero);
            S::store_up_to(value, to.add(whole), lanes);
            sum = sum.add(value);
        }
        sum.reduce_sum()
    }
}

/// As [`exponentials`], for a row whose window holds only some of the tile's keys. The weights of the others are zero.
///
/// # Safety
/// As [`exponentials`]; `keys` begins at a multiple of the lanes and contains `visible`, which is not empty; `x` and
/// `to` are valid for the keys and for the rest of their last vector.
#[inline(always)]
unsafe fn windowed_exponentials<T: MicroKernel, S: Store<T::Simd>>(
    (x, keys, visible): (*const f32, Range<usize>, Range<usize>),
    to: *mut S::Element,
) -> f32 {
    let lanes = T::Simd::WIDTH;
    // SAFETY: inside the row, by the caller's promise.
    unsafe {
        let (zero, neg_infinity) = (T::Simd::splat(0.0), T::Simd::splat(f32::NEG_INFINITY));
        let mut max = neg_infinity;
        for at in (visible.start / lanes * lanes..visible.end).step_by(lanes) {
            max = max.max(keep_range(T::Simd::load(x.add(at)), (at, &visible), neg_infinity));
        }
        let max = T::Simd::splat(max.reduce_max());
        let mut sum = zero;
        for at in keys.step_by(lanes) {
            let value = if at + lanes <= visible.start || at >= visible.end {
                zero
            } else {
                // Scores outside the window may be far larger than the maximum inside.
                let score = keep_range(T::Simd::load(x.add(at)), (at, &visible), neg_infinity);
                keep_range(T::exp(score.sub(max)), (at, &visible), zero)
            };
            S::store_up_to(value, to.add(at), lanes);
            sum = sum.add(value);
        }
        sum.reduce_sum()
    }
}

/// Keeps the lanes of the visible keys in a vector that starts at key `at`; the other lanes come from `fill`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn keep_range<L: Simd>(value: L, (at, visible): (usize, &Range<usize>), fill: L) -> L {
    // SAFETY: the caller's promise; both counts are at most the lanes.
    unsafe {
        let value = fill.keep_first(visible.start.saturating_sub(at).min(L::WIDTH), value);
        value.keep_first(visible.end.saturating_sub(at).min(L::WIDTH), fill)
    }
}

/// The destination of a tile's results.
#[derive(Clone, Copy)]
struct OutputTile<E> {
    out: *mut E,
    stride: usize,
    /// Remaining columns of the head.
    left: usize,
}

/// `out[row][..] = scale[row] · Σ_token weights[row][token] · values[token][..]` for some columns of the head.
///
/// # Safety
/// As [`attend`]; `out` is valid for `ROWS` rows of `left` values, or of `VECTORS` vectors if that is less.
#[inline(always)]
unsafe fn weighted_sum<T, O, const ROWS: usize, const VECTORS: usize>(
    operands: Operands,
    tile: OutputTile<O::Element>,
    scales: &[f32; ROWS],
) where
    T: MicroKernel,
    O: Store<T::Simd>,
{
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let sums = accumulate::<T, ROWS, VECTORS>(operands);
        for (row, vectors) in sums.into_iter().enumerate() {
            for (vector, sum) in vectors.into_iter().enumerate() {
                let at = vector * T::Simd::WIDTH;
                if tile.left > at {
                    let value = T::finish(sum, NO_BIAS, 1.0).mul(T::Simd::splat(scales[row]));
                    O::store_up_to(value, tile.out.add(row * tile.stride + at), tile.left - at);
                }
            }
        }
    }
}
