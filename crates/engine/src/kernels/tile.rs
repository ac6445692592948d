//! The micro-kernel of a matrix product, one per precision and instruction set. Everything else about a product
//! (packing, panels, remainders, attention) is written once over [`MicroKernel`].
//!
//! One step multiplies a *group* of [`DEPTH`](MicroKernel::DEPTH) consecutive activations of a row, broadcast to every
//! lane, by a vector of weights that holds `DEPTH` consecutive weights of each of its columns.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is under the single contract of Simd and MicroKernel: CPU features and valid pointers"
)]

use super::{
    activations::{exp, exp_rough, gelu, gelu_rough},
    simd::Simd,
};

/// The innermost arithmetic of a product.
pub(crate) trait MicroKernel {
    /// The f32 vector of results.
    type Simd: Simd;
    /// A group of activations, broadcast to every lane.
    type Group: Copy;
    /// A vector of weights.
    type Weights: Copy;
    /// A vector of running sums.
    type Sum: Copy;

    /// Rows of the register tile, at most [`MAX_ROWS`]. `ROWS` times `VECTORS` sums leave enough registers for the
    /// operands.
    const ROWS: usize;
    /// Vectors of columns in each row of the register tile: 2, 3 or 4.
    const VECTORS: usize;
    /// Consecutive values multiplied in one step.
    const DEPTH: usize;
    /// Bytes of a group of activations, as stored.
    const GROUP_BYTES: usize;
    /// Bytes of one column's weights of a step, as stored.
    const WEIGHT_BYTES: usize;
    /// Whether results are as exact as f32 allows. Otherwise they are rounded afterwards, and cheaper approximations of
    /// functions suffice.
    const EXACT: bool;

    unsafe fn zero() -> Self::Sum;
    unsafe fn group(from: *const u8) -> Self::Group;
    unsafe fn weights(from: *const u8) -> Self::Weights;
    unsafe fn dot(group: Self::Group, weights: Self::Weights, sum: Self::Sum) -> Self::Sum;
    /// The sums as f32, scaled if the precision has scales, plus the bias.
    unsafe fn finish(sum: Self::Sum, columns: Columns, row_scale: f32) -> Self::Simd;

    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn exp(x: Self::Simd) -> Self::Simd {
        // SAFETY: the caller's promise.
        unsafe { if Self::EXACT { exp(x) } else { exp_rough(x) } }
    }

    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn gelu(x: Self::Simd) -> Self::Simd {
        // SAFETY: the caller's promise.
        unsafe { if Self::EXACT { gelu(x) } else { gelu_rough(x) } }
    }
}

/// Maximum rows of a tile.
pub(crate) const MAX_ROWS: usize = 8;

/// Per-column data of a vector of output columns. Each pointer points to the first column's value.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) bias: *const f32,
    /// The weights' scales, for eight-bit weights.
    pub(crate) scales: *const f32,
    /// The part of a sum that comes from the activations' offset, for eight-bit weights.
    pub(crate) offsets: *const i32,
}

/// The exact micro-kernel: f32 activations and weights, on any vector type.
pub(crate) struct F32<L, const ROWS: usize, const VECTORS: usize>(std::marker::PhantomData<L>);

impl<L: Simd, const ROWS: usize, const VECTORS: usize> MicroKernel for F32<L, ROWS, VECTORS> {
    type Simd = L;
    type Group = L;
    type Weights = L;
    type Sum = L;
    const ROWS: usize = ROWS;
    const VECTORS: usize = VECTORS;
    const DEPTH: usize = 1;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 4;
    const EXACT: bool = true;

    #[inline(always)]
    unsafe fn zero() -> L {
        unsafe { L::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> L {
        unsafe { L::splat(from.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> L {
        unsafe { L::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(group: L, weights: L, sum: L) -> L {
        unsafe { group.mul_add(weights, sum) }
    }

    #[inline(always)]
    unsafe fn finish(sum: L, columns: Columns, _: f32) -> L {
        unsafe { sum.add(L::load(columns.bias)) }
    }
}

/// bf16 weights, widened when read, and f32 activations: half the memory on a CPU without bf16 arithmetic.
pub(crate) struct Widened<L, const ROWS: usize, const VECTORS: usize>(std::marker::PhantomData<L>);

impl<L: Simd, const ROWS: usize, const VECTORS: usize> MicroKernel for Widened<L, ROWS, VECTORS> {
    type Simd = L;
    type Group = L;
    type Weights = L;
    type Sum = L;
    const ROWS: usize = ROWS;
    const VECTORS: usize = VECTORS;
    const DEPTH: usize = 1;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 2;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> L {
        unsafe { L::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> L {
        unsafe { L::splat(from.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> L {
        unsafe { L::load_bf16(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(group: L, weights: L, sum: L) -> L {
        unsafe { group.mul_add(weights, sum) }
    }

    #[inline(always)]
    unsafe fn finish(sum: L, columns: Columns, _: f32) -> L {
        unsafe { sum.add(L::load(columns.bias)) }
    }
}
