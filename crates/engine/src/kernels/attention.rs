//! Softmax attention of one text: every head looks at every token, with no mask, because there is no padding.
//!
//! Per head, keys are packed across (so that scores are a matrix product of the usual tile), a few query rows
//! at a time get their scores, their softmax, and their weighted sum of values, while all of it is in cache.

use super::{
    lanes::Lanes,
    matmul::{Operands, accumulate},
    rows::{put, softmax},
};

/// Vectors of keys, or of value columns, in a tile.
const VECTORS: usize = 2;

/// Attention of one text; made by [`super::Kernels::attention`], which checks the lengths.
pub(crate) struct Attention<'a> {
    /// Tokens of the text.
    pub(super) tokens: usize,
    pub(super) heads: usize,
    /// Width of one head.
    pub(super) head: usize,
    /// `[tokens × 3 × heads × head]`: queries (already scaled by 1/√head), keys, values.
    pub(super) qkv: &'a [f32],
    /// `[tokens × heads × head]`
    pub(super) out: *mut f32,
    pub(super) scratch: *mut f32,
}

/// Floats of scratch that a text needs, for vectors of `lanes`.
pub(super) fn scratch_len(tokens: usize, head: usize, lanes: usize) -> usize {
    let keys = tokens.next_multiple_of(VECTORS * lanes);
    keys * head + tokens * head.next_multiple_of(lanes) + MOST_ROWS * keys
}

/// No instruction set's tile has more rows.
const MOST_ROWS: usize = 8;

/// # Safety
/// As [`Lanes`]; the buffers have the lengths that [`Attention`] and [`scratch_len`] say.
#[inline(always)]
pub(super) unsafe fn run<L: Lanes>(call: &Attention<'_>) {
    let Attention { tokens, heads, head, .. } = *call;
    let key_panel = VECTORS * L::WIDTH;
    let padded_keys = tokens.next_multiple_of(key_panel);
    let padded_head = head.next_multiple_of(L::WIDTH);
    // SAFETY: the three parts of the scratch follow each other in `scratch_len`; every head's slice of a token's
    // queries, keys and values lies inside its row of `qkv`.
    unsafe {
        let keys = call.scratch;
        let values = keys.add(padded_keys * head);
        let scores = values.add(tokens * padded_head);
        let stride = 3 * heads * head;
        for index in 0..heads {
            let query = call.qkv.as_ptr().add(index * head);
            let key = query.add(heads * head);
            let value = key.add(heads * head);
            for token in 0..tokens {
                // Panels of keys, each [head][key_panel]; what lies behind the last key is never looked at.
                let panel = keys.add(token / key_panel * key_panel * head + token % key_panel);
                for at in 0..head {
                    *panel.add(at * key_panel) = *key.add(token * stride + at);
                }
                for at in (0..padded_head).step_by(L::WIDTH) {
                    let left = head - at;
                    let part = L::load_part(value.add(token * stride + at), left, 0.0);
                    part.store(values.add(token * padded_head + at));
                }
            }
            for first in (0..tokens).step_by(L::ROWS) {
                let rows = Rows {
                    query: query.add(first * stride),
                    stride,
                    keys,
                    values,
                    scores,
                    padded_keys,
                    padded_head,
                    out: call.out.add(first * heads * head + index * head),
                };
                match (tokens - first).min(L::ROWS) {
                    1 => attend::<L, 1>(call, rows),
                    2 => attend::<L, 2>(call, rows),
                    3 => attend::<L, 3>(call, rows),
                    4 => attend::<L, 4>(call, rows),
                    5 => attend::<L, 5>(call, rows),
                    6 => attend::<L, 6>(call, rows),
                    7 => attend::<L, 7>(call, rows),
                    _ => attend::<L, 8>(call, rows),
                }
            }
        }
    }
}

/// A few query rows of one head, and where their operands lie.
#[derive(Clone, Copy)]
struct Rows {
    query: *const f32,
    stride: usize,
    keys: *const f32,
    values: *const f32,
    scores: *mut f32,
    padded_keys: usize,
    padded_head: usize,
    out: *mut f32,
}

/// # Safety
/// As [`run`]; `ROWS` query rows exist.
#[inline(always)]
unsafe fn attend<L: Lanes, const ROWS: usize>(call: &Attention<'_>, rows: Rows) {
    let Attention { tokens, heads, head, .. } = *call;
    let key_panel = VECTORS * L::WIDTH;
    // SAFETY: passed on; partial stores keep to the head's own columns.
    unsafe {
        for first in (0..tokens).step_by(key_panel) {
            let mut scores = [[L::splat(0.0); VECTORS]; ROWS];
            let operands = Operands {
                a: rows.query,
                a_stride: rows.stride,
                b: rows.keys.add(first * head),
                b_stride: key_panel,
                depth: head,
            };
            accumulate::<L, ROWS, VECTORS>(&mut scores, operands);
            for (row, vectors) in scores.iter().enumerate() {
                for (vector, value) in vectors.iter().enumerate() {
                    value.store(rows.scores.add(row * rows.padded_keys + first + vector * L::WIDTH));
                }
            }
        }
        for row in 0..ROWS {
            softmax::<L>(rows.scores.add(row * rows.padded_keys), tokens);
        }
        let mut at = 0;
        while at < head {
            let operands = Operands {
                a: rows.scores,
                a_stride: rows.padded_keys,
                b: rows.values.add(at),
                b_stride: rows.padded_head,
                depth: tokens,
            };
            let out = rows.out.add(at);
            if rows.padded_head - at >= key_panel {
                weigh::<L, ROWS, VECTORS>(operands, out, heads * head, head - at);
                at += key_panel;
            } else {
                weigh::<L, ROWS, 1>(operands, out, heads * head, head - at);
                at += L::WIDTH;
            }
        }
    }
}

/// `out[row][..] = Σ_token weights[row][token] · values[token][..]` for a few columns of the head.
///
/// # Safety
/// As [`attend`]; `out` is valid for `ROWS` rows of `left` floats, or of `VECTORS` vectors if that is less.
#[inline(always)]
unsafe fn weigh<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    operands: Operands,
    out: *mut f32,
    out_stride: usize,
    left: usize,
) {
    // SAFETY: passed on.
    unsafe {
        let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
        accumulate::<L, ROWS, VECTORS>(&mut sums, operands);
        for (row, vectors) in sums.iter().enumerate() {
            for (vector, value) in vectors.iter().enumerate() {
                let at = vector * L::WIDTH;
                if left > at {
                    put(*value, out.add(row * out_stride + at), left - at);
                }
            }
        }
    }
}
