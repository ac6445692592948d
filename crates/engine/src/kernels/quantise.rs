//! Eight-bit quantisation with a scale per row, and the rotation that makes eight bits sufficient.
//!
//! A few activations of a row are far larger than the others, and a scale that covers them leaves few steps for the
//! rest. Rows are therefore multiplied by a block-diagonal Hadamard matrix H first, which spreads every value over its
//! block. Weights are multiplied by the same matrix. Because H·H = n·I, the product is the same up to the factor n. The
//! method is that of QuaRot (arXiv:2404.00456). Blocks of 128 had the smallest error in our measurements.

use super::simd::{Simd, load_up_to};

/// The arguments of a quantisation of f32 rows to rows of bytes around 128. Built by [`super::Kernels::prepare`], which
/// checks the lengths.
pub(crate) struct QuantiseArgs {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × width]`
    pub(super) x: *const f32,
    /// `rows` rows of `stride` bytes
    pub(super) out: *mut u8,
    pub(super) stride: usize,
    /// `[rows]`: the value of one step, per row.
    pub(super) scales: *mut f32,
    /// `width` floats.
    pub(super) scratch: *mut f32,
}

/// Size of a rotated block: the largest power of two from 16 to 128 that divides the width, or 1 (no rotation) if none
/// does.
pub(super) fn block(width: usize) -> usize {
    [128, 64, 32, 16].into_iter().find(|block| width.is_multiple_of(*block)).unwrap_or(1)
}

/// Rotates each row, finds its largest magnitude m, and writes every value as `round(127·x/m) + 128`. Rotation
/// multiplies lengths by √block, and the scale includes this factor. The scale is NaN if a value of the row is not
/// finite.
///
/// # Safety
/// As [`Simd`]; the buffers are as [`QuantiseArgs`] says, `stride` is `width` rounded up to 16 at least.
#[inline(always)]
pub(super) unsafe fn quantise<L: Simd>(args: &QuantiseArgs) {
    let QuantiseArgs { rows, width, x, out, stride, scales, scratch } = *args;
    let block = block(width);
    for row in 0..rows {
        // SAFETY: inside the buffers, by the caller's promise; a vector that begins inside the width ends
        // inside the stride.
        unsafe {
            let x = x.add(row * width);
            let (values, Magnitudes { max, sum }) = if block == 1 {
                (x, magnitudes::<L>(x, width))
            } else {
                (scratch.cast_const(), rotate::<L>(x, scratch, width, block))
            };
            let max = max.reduce_max();
            let zero_if_finite = sum.sub(sum).reduce_sum();
            *scales.add(row) = max / 127.0 + zero_if_finite;
            let scale = L::splat(if max > 0.0 { 127.0 / max } else { 0.0 });
            for at in (0..width).step_by(L::WIDTH) {
                let value = load_up_to::<L>(values.add(at), width - at);
                value.mul_add(scale, L::splat(128.0)).store_bytes(out.add(row * stride + at));
            }
        }
    }
}

/// Maximum and sum of the magnitudes of a row, per lane.
struct Magnitudes<L> {
    max: L,
    /// Finite only if all values are finite. The maximum ignores NaN.
    sum: L,
}

impl<L: Simd> Magnitudes<L> {
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { max: L::splat(0.0), sum: L::splat(0.0) } }
    }

    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn include(&mut self, magnitudes: L) {
        // SAFETY: the caller's promise.
        unsafe {
            self.max = self.max.max(magnitudes);
            self.sum = self.sum.add(magnitudes);
        }
    }
}

/// The magnitudes of a row that is not rotated.
///
/// # Safety
/// As [`Simd`]; `x` is valid for `width` floats.
#[inline(always)]
unsafe fn magnitudes<L: Simd>(x: *const f32, width: usize) -> Magnitudes<L> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut magnitudes = Magnitudes::zero();
        for at in (0..width).step_by(L::WIDTH) {
            magnitudes.include(load_up_to::<L>(x.add(at), width - at).abs());
        }
        magnitudes
    }
}

/// Multiplies each block of a row by the Hadamard matrix of ±1. If one value of a block is not finite, no value of the
/// result is.
///
/// # Safety
/// As [`Simd`]; `x` and `to` are valid for `width` floats, a multiple of `block`, which is a result of [`block`].
#[inline(always)]
unsafe fn rotate<L: Simd>(x: *const f32, to: *mut f32, width: usize, block: usize) -> Magnitudes<L> {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let mut magnitudes = Magnitudes::zero();
        for at in (0..width).step_by(block) {
            let (x, to) = (x.add(at), to.add(at));
            let block_max = match block / L::WIDTH {
                1 => rotate_block::<L, 1>(x, to),
                2 => rotate_block::<L, 2>(x, to),
                4 => rotate_block::<L, 4>(x, to),
                8 => rotate_block::<L, 8>(x, to),
                16 => rotate_block::<L, 16>(x, to),
                _ => rotate_block::<L, 32>(x, to),
            };
            magnitudes.include(block_max);
        }
        magnitudes
    }
}

/// Rotates one block of `VECTORS` vectors: butterflies between vectors first, then between lanes. Returns the largest
/// magnitude of each lane.
///
/// # Safety
/// As [`Simd`]; `x` and `to` are valid for the block.
#[inline(always)]
unsafe fn rotate_block<L: Simd, const VECTORS: usize>(x: *const f32, to: *mut f32) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let mut values = [L::splat(0.0); VECTORS];
        for (vector, value) in values.iter_mut().enumerate() {
            *value = L::load(x.add(vector * L::WIDTH));
        }
        for stage in 0..VECTORS.trailing_zeros() {
            let distance = 1 << stage;
            for i in 0..VECTORS {
                if i & distance == 0 {
                    let (a, b) = (values[i], values[i + distance]);
                    (values[i], values[i + distance]) = (a.add(b), a.sub(b));
                }
            }
        }
        let mut max = L::splat(0.0);
        for (vector, value) in values.into_iter().enumerate() {
            let mut value = lane_butterfly::<L, 2>(lane_butterfly::<L, 1>(value));
            if L::WIDTH > 4 {
                value = lane_butterfly::<L, 4>(value);
            }
            if L::WIDTH > 8 {
                value = lane_butterfly::<L, 8>(value);
            }
            value.store(to.add(vector * L::WIDTH));
            max = max.max(value.abs());
        }
        max
    }
}

/// The butterfly between lanes. For each pair (a, b) of lanes that differ in the bit `DISTANCE`, the lane without the
/// bit becomes a + b and the lane with it a - b.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn lane_butterfly<L: Simd, const DISTANCE: usize>(value: L) -> L {
    // SAFETY: the caller's promise; there are sixteen signs.
    unsafe {
        value.mul_add(
            L::load(SIGNS[DISTANCE.trailing_zeros() as usize].as_ptr()),
            value.butterfly::<DISTANCE>(),
        )
    }
}

/// For distances 1, 2, 4 and 8: -1 for lanes whose index has the bit of the distance, else 1.
const SIGNS: &[[f32; 16]; 4] = &{
    let mut signs = [[1.0; 16]; 4];
    let mut lane = 0;
    while lane < 16 {
        let mut stage = 0;
        while stage < 4 {
            if lane >> stage & 1 == 1 {
                signs[stage][lane] = -1.0;
            }
            stage += 1;
        }
        lane += 1;
    }
    signs
};
