//! Softmax attention within one text: a row of queries looks at the tokens of its text that it sees, mostly all of
//! them, because there is no padding.
//!
//! Per head, keys and values are packed as a product's weights, a few query rows at a time get their scores,
//! their softmax and their weighted sum of values, while all of it is in cache. Keys that none of these rows sees
//! cost nothing. Scores are computed in the form of the queries and keys, f32 or bf16; softmax is in f32 either way.

use std::ops::Range;

use super::{
    MatrixRef,
    matmul::{Operands, accumulate, tiles},
    simd::{AsF32, Simd, Store, part},
    tile::{Columns, MAX_ROWS, MicroKernel},
};

/// Vectors of keys, or of value columns, in a tile.
const VECTORS: usize = 2;

/// Attention of some rows of one text; made by [`super::Kernels::attention`], which checks the lengths.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// Tokens of the text.
    pub(super) tokens: usize,
    /// Which of them ask: `first..first + rows`.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) heads: AttentionShape<'a>,
    /// `tokens` rows of queries (scaled as the model scales scores), keys and values, of the form that the entry
    /// point is for.
    pub(super) qkv: *const u8,
    /// Numbers from one row to the next.
    pub(super) qkv_stride: usize,
    /// `rows` rows of `heads × head`, f32 or bf16 as the entry point says.
    pub(super) out: *mut u8,
    /// Numbers from one row to the next.
    pub(super) out_stride: usize,
    /// As long as [`scratch_len`] says.
    pub(super) room: *mut u32,
}

/// Who asks: the tokens of one text from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct AttentionInput<'a> {
    /// A row for every token of the text: scaled queries, keys, values.
    pub(crate) qkv: MatrixRef<'a>,
    pub(crate) first: usize,
    pub(crate) heads: AttentionShape<'a>,
}

/// How a row of queries, keys and values is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape<'a> {
    pub(crate) count: usize,
    /// Heads of keys and of values, which divide `count`: each serves as many heads of queries that follow each
    /// other.
    pub(crate) key_values: usize,
    pub(crate) width: usize,
    pub(crate) sight: AttentionWindow,
    /// What is added to every score, where the model has such a bias.
    pub(crate) bias: Option<&'a DistanceBias>,
}

impl AttentionShape<'_> {
    /// Numbers in a row of queries, keys and values.
    pub(crate) fn row(&self) -> usize {
        (self.count + 2 * self.key_values) * self.width
    }
}

/// How far a token sees in its text: this many tokens back and ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionWindow {
    pub(crate) back: usize,
    pub(crate) ahead: usize,
}

impl AttentionWindow {
    /// The whole text.
    pub(crate) const ALL: Self = Self { back: usize::MAX, ahead: usize::MAX };
    /// What came before.
    pub(crate) const BACK: Self = Self { back: usize::MAX, ahead: 0 };

    /// As far in both directions.
    pub(crate) const fn around(distance: usize) -> Self {
        Self { back: distance, ahead: distance }
    }

    /// What the tokens from `first` to `last` see of a text, all of them together.
    #[inline(always)]
    fn of(self, first: usize, last: usize, tokens: usize) -> Range<usize> {
        first.saturating_sub(self.back)..last.saturating_add(self.ahead).saturating_add(1).min(tokens)
    }
}

/// A bias that depends on the head and on how far the key stands behind the query.
#[derive(Debug)]
pub(crate) struct DistanceBias {
    /// `[heads × (2·reach - 1)]`; the bias for key j and query i is at `j - i + reach - 1`.
    pub(crate) values: Vec<f32>,
    /// Texts are shorter than or as long as this.
    pub(crate) reach: usize,
}

/// Words of room that a text needs, for vectors of `lanes`: packed keys, packed values, scores, weights.
pub(super) fn scratch_len(tokens: usize, head: usize, lanes: usize) -> usize {
    let keys = tokens.next_multiple_of(VECTORS * lanes);
    keys * head + (keys + 1) * head.next_multiple_of(lanes) + 2 * MAX_ROWS * keys
}

/// Where one head's operands lie.
#[derive(Clone, Copy)]
struct Head {
    /// `[key panels][steps][panel]` groups.
    keys: *const u8,
    /// `[steps of tokens][padded head]` groups.
    values: *const u8,
    scores: *mut f32,
    /// The softmax's weights, not yet divided by their sum.
    weights: *mut u8,
    padded_keys: usize,
    padded_head: usize,
    index: usize,
}

/// # Safety
/// As [`Simd`]; the buffers are as [`Attention`] says; `S` stores what `T` multiplies, a group of `T` divides
/// `head`; `O` is the form of `out`.
#[inline(always)]
pub(super) unsafe fn run<T, S, O>(call: &Attention<'_>)
where
    T: MicroKernel,
    S: Store<T::Simd>,
    O: Store<T::Simd>,
{
    const { assert!(T::ROWS <= MAX_ROWS, "tiles that the arms below know") }
    let Attention { tokens, heads: AttentionShape { count, key_values, width: head, .. }, .. } = *call;
    let lanes = T::Simd::WIDTH;
    let padded_keys = tokens.next_multiple_of(VECTORS * lanes);
    let padded_head = head.next_multiple_of(lanes);
    let number = size_of::<S::Number>();
    // SAFETY: the parts of the room follow each other as `room` counts them; every head's slice of a token's
    // queries, keys and values lies inside its row.
    unsafe {
        let keys = call.room.cast::<u8>();
        let values = keys.add(4 * padded_keys * head);
        let scores = values.add(4 * (padded_keys + 1) * padded_head);
        let weights = scores.add(4 * MAX_ROWS * padded_keys);
        let group = count / key_values;
        for index in 0..count {
            if index % group == 0 {
                let key = call.qkv.add((count + index / group) * head * number);
                let value = key.add(key_values * head * number);
                pack_keys::<T>(call, key, call.qkv_stride * number, keys);
                pack_values::<T, S>(call, value, values);
            }
            let place = Head {
                keys,
                values,
                scores: scores.cast(),
                // f32 weights take the scores' place.
                weights: if number == 4 { scores } else { weights },
                padded_keys,
                padded_head,
                index,
            };
            for (first, rows) in tiles(call.rows, T::ROWS) {
                match rows {
                    1 => attend::<T, S, O, 1>(call, place, first),
                    2 => attend::<T, S, O, 2>(call, place, first),
                    3 => attend::<T, S, O, 3>(call, place, first),
                    4 => attend::<T, S, O, 4>(call, place, first),
                    5 => attend::<T, S, O, 5>(call, place, first),
                    6 => attend::<T, S, O, 6>(call, place, first),
                    7 => attend::<T, S, O, 7>(call, place, first),
                    _ => attend::<T, S, O, MAX_ROWS>(call, place, first),
                }
            }
        }
    }
}

/// Keys become columns: a group of a key's numbers is a word, and words are transposed in panels. What lies
/// behind the last key is never looked at.
///
/// # Safety
/// As [`run`]; `key` points to the first token's.
#[inline(always)]
unsafe fn pack_keys<T: MicroKernel>(call: &Attention<'_>, key: *const u8, stride: usize, to: *mut u8) {
    const { assert!(T::GROUP_BYTES == 4 && T::WEIGHT_BYTES == 4) };
    let (lanes, panel) = (T::Simd::WIDTH, VECTORS * T::Simd::WIDTH);
    let steps = call.heads.width / T::DEPTH;
    let to = to.cast::<f32>();
    for first in (0..call.tokens).step_by(lanes) {
        let here = lanes.min(call.tokens - first);
        // SAFETY: reads are inside the tokens' keys, writes inside the panel.
        unsafe {
            let key = key.add(first * stride);
            let to = to.add(first / panel * panel * steps + first % panel);
            let whole = steps / lanes * lanes;
            for step in (0..whole).step_by(lanes) {
                let (key, to) = (key.add(4 * step), to.add(step * panel));
                match lanes {
                    16 => transpose::<T::Simd, 16>((key, stride, here), (to, panel)),
                    8 => transpose::<T::Simd, 8>((key, stride, here), (to, panel)),
                    _ => transpose::<T::Simd, 4>((key, stride, here), (to, panel)),
                }
            }
            for step in whole..steps {
                for token in 0..here {
                    let word = key.add(token * stride + 4 * step).cast::<f32>().read_unaligned();
                    to.add(step * panel + token).write(word);
                }
            }
        }
    }
}

/// A square of words: up to `WIDTH` rows of `WIDTH` words become as many columns.
///
/// # Safety
/// As [`Simd`], which has `WIDTH` lanes; `here` rows, `stride` bytes apart, are valid for a vector, and so are
/// `WIDTH` vectors of the result, `panel` words apart.
#[inline(always)]
unsafe fn transpose<L: Simd, const WIDTH: usize>(
    (from, stride, here): (*const u8, usize, usize),
    (to, panel): (*mut f32, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [L::splat(0.0); WIDTH];
        for (row, vector) in rows.iter_mut().enumerate() {
            // Rows that are not there are the last again, without a branch; nobody looks at their columns.
            *vector = L::load(from.add(row.min(here - 1) * stride).cast());
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

/// One step of a transposition: exchanges one bit of the row's number with the same bit of the lane's.
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

/// Values stay rows; `DEPTH` tokens' rows are interleaved, with zeros behind the last token.
///
/// # Safety
/// As [`run`]; `value` points to the first token's.
#[inline(always)]
unsafe fn pack_values<T: MicroKernel, S: Store<T::Simd>>(
    call: &Attention<'_>,
    value: *const u8,
    to: *mut u8,
) {
    const { assert!(T::DEPTH * size_of::<S::Number>() == 4) };
    let Attention { tokens, qkv_stride, heads: AttentionShape { width: head, .. }, .. } = *call;
    let padded = head.next_multiple_of(T::Simd::WIDTH);
    for first in (0..tokens).step_by(T::DEPTH) {
        // SAFETY: a token's value lies in its row of `qkv`; the padded row, a word for each column, in the room.
        unsafe {
            let to = std::slice::from_raw_parts_mut(to.cast::<u32>().add(first / T::DEPTH * padded), head);
            if T::DEPTH == 1 {
                let row = value.cast::<u32>().add(first * qkv_stride);
                to.copy_from_slice(std::slice::from_raw_parts(row, head));
                continue;
            }
            let row = value.cast::<u16>().add(first * qkv_stride);
            let even = std::slice::from_raw_parts(row, head);
            if first + 1 < tokens {
                let odd = std::slice::from_raw_parts(row.add(qkv_stride), head);
                for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
                    *to = u32::from(*even) | u32::from(*odd) << 16;
                }
            } else {
                to.iter_mut().zip(even).for_each(|(to, even)| *to = u32::from(*even));
            }
        }
    }
}

/// # Safety
/// As [`run`]; `ROWS` query rows from `first` exist.
#[inline(always)]
unsafe fn attend<T, S, O, const ROWS: usize>(call: &Attention<'_>, head: Head, first: usize)
where
    T: MicroKernel,
    S: Store<T::Simd>,
    O: Store<T::Simd>,
{
    let Attention { tokens, heads: AttentionShape { count, width, sight, bias, .. }, .. } = *call;
    let lanes = T::Simd::WIDTH;
    let panel = VECTORS * lanes;
    let number = size_of::<S::Number>();
    let token = call.first + first;
    // The keys that any of these rows sees, from the beginning of a panel on.
    let Range { start, end } = sight.of(token, token + ROWS - 1, tokens);
    let start = start / panel * panel;
    // SAFETY: passed on; partial stores keep to the head's own columns.
    unsafe {
        let queries = call.qkv.add((token * call.qkv_stride + head.index * width) * number);
        let least = T::Simd::splat(f32::NEG_INFINITY);
        let mut largest = [least; ROWS];
        for key in (start..end).step_by(panel) {
            let operands = Operands {
                a: queries,
                a_stride: call.qkv_stride * number,
                b: head.keys.add(4 * key * (width / T::DEPTH)),
                b_stride: 4 * panel,
                steps: width / T::DEPTH,
            };
            let sums = accumulate::<T, ROWS, VECTORS>(operands);
            for (row, vectors) in sums.into_iter().enumerate() {
                for (vector, sum) in vectors.into_iter().enumerate() {
                    let at = key + vector * lanes;
                    let score = T::finish(sum, NO_BIAS, 1.0);
                    score.store(head.scores.add(row * head.padded_keys + at));
                    // Only keys that there are.
                    let seen = if tokens >= at + lanes {
                        score
                    } else {
                        score.first(tokens.saturating_sub(at), least)
                    };
                    largest[row] = largest[row].max(seen);
                }
            }
        }
        let mut scales = [0.0; ROWS];
        for (row, scale) in scales.iter_mut().enumerate() {
            let at = row * head.padded_keys;
            let scores = head.scores.add(at);
            if let Some(DistanceBias { values, reach }) = bias {
                let from = head.index * (2 * reach - 1) + reach - 1 - (token + row);
                let values = values.as_ptr().add(from + start);
                largest[row] = add::<T::Simd>(scores.add(start), values, end - start);
            }
            let weights = head.weights.cast::<S::Number>().add(at);
            *scale = 1.0
                / if sight == AttentionWindow::ALL {
                    exponentials::<T, S>((scores, tokens), weights, largest[row].reduce_max())
                } else {
                    let seen = sight.of(token + row, token + row, tokens);
                    exponentials_of_seen::<T, S>((scores, start..end, seen), weights)
                };
        }
        let mut at = 0;
        while at < width {
            let operands = Operands {
                a: head.weights.add(start * number),
                a_stride: head.padded_keys * number,
                b: head.values.add(4 * (start / T::DEPTH * head.padded_head + at)),
                b_stride: 4 * head.padded_head,
                steps: (end - start).div_ceil(T::DEPTH),
            };
            let column = first * call.out_stride + head.index * width + at;
            let out = call.out.cast::<O::Number>().add(column);
            let place = Place { out, stride: call.out_stride, left: width - at };
            if head.padded_head - at >= panel {
                weighted_sum::<T, O, ROWS, VECTORS>(operands, place, &scales);
                at += panel;
            } else {
                weighted_sum::<T, O, ROWS, 1>(operands, place, &scales);
                at += lanes;
            }
        }
        debug_assert!(head.index < count);
    }
}

/// Sums of attention have nothing added to them.
const NO_BIAS: Columns =
    Columns { bias: ZEROS.as_ptr(), scales: std::ptr::null(), offsets: std::ptr::null() };
const ZEROS: &[f32; 16] = &[0.0; 16];

/// `x += y`; returns the largest sums, by lane.
///
/// # Safety
/// As [`Simd`]; both are valid for `width` floats.
#[inline(always)]
unsafe fn add<L: Simd>(x: *mut f32, y: *const f32, width: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let least = L::splat(f32::NEG_INFINITY);
        let mut largest = least;
        for at in (0..width).step_by(L::WIDTH) {
            let left = width - at;
            let sum = part::<L>(x.add(at), left).add(part::<L>(y.add(at), left));
            AsF32::put(sum, x.add(at), left);
            largest = largest.max(sum.first(left.min(L::WIDTH), least));
        }
        largest
    }
}

/// Writes e^(x - largest) of a row of `width` and returns their sum. The largest is 1, so nothing overflows.
/// Behind the row, to the end of the last vector, come zeros.
///
/// # Safety
/// As [`Simd`]; `x` is valid for `width` floats, at least one, and for the rest of its last vector; `to` for
/// as many numbers.
#[inline(always)]
unsafe fn exponentials<T: MicroKernel, S: Store<T::Simd>>(
    (x, width): (*const f32, usize),
    to: *mut S::Number,
    largest: f32,
) -> f32 {
    let lanes = T::Simd::WIDTH;
    // SAFETY: inside the row, by the caller's promise.
    unsafe {
        let largest = T::Simd::splat(largest);
        let zero = T::Simd::splat(0.0);
        let mut sum = zero;
        let whole = width / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            let value = T::exp(T::Simd::load(x.add(at)).sub(largest));
            S::put(value, to.add(at), lanes);
            sum = sum.add(value);
        }
        if whole < width {
            let value = T::exp(T::Simd::load(x.add(whole)).sub(largest)).first(width - whole, zero);
            S::put(value, to.add(whole), lanes);
            sum = sum.add(value);
        }
        sum.reduce_sum()
    }
}

/// As [`exponentials`], for a row that sees only some of the keys that its tile looks at: the weights of the others
/// are zero.
///
/// # Safety
/// As [`exponentials`]; `keys` begins at a multiple of the lanes and contains `seen`, which is not empty; `x` and `to`
/// are valid for the keys and for the rest of their last vector.
#[inline(always)]
unsafe fn exponentials_of_seen<T: MicroKernel, S: Store<T::Simd>>(
    (x, keys, seen): (*const f32, Range<usize>, Range<usize>),
    to: *mut S::Number,
) -> f32 {
    let lanes = T::Simd::WIDTH;
    // SAFETY: inside the row, by the caller's promise.
    unsafe {
        let (zero, least) = (T::Simd::splat(0.0), T::Simd::splat(f32::NEG_INFINITY));
        let mut largest = least;
        for at in (seen.start / lanes * lanes..seen.end).step_by(lanes) {
            largest = largest.max(only(T::Simd::load(x.add(at)), (at, &seen), least));
        }
        let largest = T::Simd::splat(largest.reduce_max());
        let mut sum = zero;
        for at in keys.step_by(lanes) {
            let value = if at + lanes <= seen.start || at >= seen.end {
                zero
            } else {
                // Unseen scores may be far larger than the largest seen one.
                let score = only(T::Simd::load(x.add(at)), (at, &seen), least);
                only(T::exp(score.sub(largest)), (at, &seen), zero)
            };
            S::put(value, to.add(at), lanes);
            sum = sum.add(value);
        }
        sum.reduce_sum()
    }
}

/// The lanes of the vector of keys from `at` on that are seen; the others from `fill`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn only<L: Simd>(value: L, (at, seen): (usize, &Range<usize>), fill: L) -> L {
    // SAFETY: the caller's promise; both counts are at most the lanes.
    unsafe {
        let value = fill.first(seen.start.saturating_sub(at).min(L::WIDTH), value);
        value.first(seen.end.saturating_sub(at).min(L::WIDTH), fill)
    }
}

/// Where a tile's results go.
#[derive(Clone, Copy)]
struct Place<N> {
    out: *mut N,
    stride: usize,
    /// Columns that the head has from here on.
    left: usize,
}

/// `out[row][..] = scale[row] · Σ_token weights[row][token] · values[token][..]` for a few columns of the head.
///
/// # Safety
/// As [`attend`]; `out` is valid for `ROWS` rows of `left` numbers, or of `VECTORS` vectors if that is less.
#[inline(always)]
unsafe fn weighted_sum<T, O, const ROWS: usize, const VECTORS: usize>(
    operands: Operands,
    place: Place<O::Number>,
    scales: &[f32; ROWS],
) where
    T: MicroKernel,
    O: Store<T::Simd>,
{
    // SAFETY: passed on.
    unsafe {
        let sums = accumulate::<T, ROWS, VECTORS>(operands);
        for (row, vectors) in sums.into_iter().enumerate() {
            for (vector, sum) in vectors.into_iter().enumerate() {
                let at = vector * T::Simd::WIDTH;
                if place.left > at {
                    let value = T::finish(sum, NO_BIAS, 1.0).mul(T::Simd::splat(scales[row]));
                    O::put(value, place.out.add(row * place.stride + at), place.left - at);
                }
            }
        }
    }
}
