//! The matrix product, rows of activations times packed weights. It takes most of the computing time.
//!
//! The innermost loop reads a panel of weights in order. One step loads a row of the panel, and for each row of the
//! tile broadcasts one group of activations and multiplies. An output is one chain of multiply-adds in the order of k,
//! in any tile. Therefore a text's vector does not depend on the rest of its batch.

use super::{
    packed::PackedMatrix,
    simd::{Simd, Store},
    tile::{Columns, MAX_ROWS, MicroKernel},
};

/// The function that is applied to an output before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// The arguments of `out[rows × outputs] = activation(x[rows × inputs] · Wᵀ + bias)`. Built by
/// [`super::Kernels::matmul`], which checks the lengths.
pub(crate) struct MatMulArgs<'a> {
    pub(super) rows: usize,
    /// Activations in the type that the matrix requires.
    pub(super) x: *const u8,
    /// Bytes from one row of activations to the next.
    pub(super) x_stride: usize,
    /// One scale per row for eight-bit activations, else null.
    pub(super) row_scales: *const f32,
    pub(super) matrix: &'a PackedMatrix,
    /// f32 or bf16, depending on the entry point.
    pub(super) out: *mut u8,
    /// Values from one row of results to the next.
    pub(super) out_stride: usize,
}

/// Computes the product.
///
/// # Safety
/// As [`Simd`]; `x` has `rows` rows of whole groups, `row_scales` has a scale for each if the micro-kernel reads them,
/// `out` is valid for writing `rows × outputs` values of `S`, and the matrix was packed for `T`.
#[inline(always)]
pub(super) unsafe fn run<T: MicroKernel, S: Store<T::Simd>>(args: &MatMulArgs<'_>) {
    const { assert!(T::ROWS <= MAX_ROWS && matches!(T::VECTORS, 2..=4), "the arms below cover all tiles") }
    let panel = T::VECTORS * T::Simd::WIDTH;
    // All rows use one panel before the next panel is read, so the panel (tens of kilobytes) stays in the cache.
    for first_column in (0..args.matrix.outputs).step_by(panel) {
        for (first_row, rows) in tiles(args.rows, T::ROWS) {
            let origin = TileOrigin { first_row, first_column };
            // SAFETY: the caller's promise is passed on; rows and columns stay inside the matrix.
            unsafe {
                match rows {
                    1 => tile_of_width::<T, S, 1>(args, origin),
                    2 => tile_of_width::<T, S, 2>(args, origin),
                    3 => tile_of_width::<T, S, 3>(args, origin),
                    4 => tile_of_width::<T, S, 4>(args, origin),
                    5 => tile_of_width::<T, S, 5>(args, origin),
                    6 => tile_of_width::<T, S, 6>(args, origin),
                    7 => tile_of_width::<T, S, 7>(args, origin),
                    _ => tile_of_width::<T, S, MAX_ROWS>(args, origin),
                }
            }
        }
    }
}

/// Tiles (first row, number of rows) of nearly equal height that cover `rows`. Ten rows are 5 + 5 and not 8 + 2,
/// because a tile of few rows does not keep the multipliers busy.
#[inline(always)]
pub(super) fn tiles(rows: usize, max_rows: usize) -> Tiles {
    Tiles { first: 0, end: rows, left: rows.div_ceil(max_rows) }
}

/// Iterator returned by [`tiles`].
pub(super) struct Tiles {
    first: usize,
    end: usize,
    left: usize,
}

impl Iterator for Tiles {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        let (first, rows) = (self.first, (self.end - self.first).div_ceil(self.left));
        self.first += rows;
        self.left -= 1;
        Some((first, rows))
    }
}

/// The first row and column of a tile.
#[derive(Clone, Copy)]
struct TileOrigin {
    first_row: usize,
    first_column: usize,
}

/// # Safety
/// As [`run`]; `ROWS` rows from `origin` exist.
#[inline(always)]
unsafe fn tile_of_width<T: MicroKernel, S: Store<T::Simd>, const ROWS: usize>(
    args: &MatMulArgs<'_>,
    origin: TileOrigin,
) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match T::VECTORS {
            4 => tile::<T, S, ROWS, 4>(args, origin),
            3 => tile::<T, S, ROWS, 3>(args, origin),
            _ => tile::<T, S, ROWS, 2>(args, origin),
        }
    }
}

/// # Safety
/// As [`tile_of_width`].
#[inline(always)]
unsafe fn tile<T: MicroKernel, S: Store<T::Simd>, const ROWS: usize, const VECTORS: usize>(
    args: &MatMulArgs<'_>,
    origin: TileOrigin,
) {
    let matrix = args.matrix;
    let TileOrigin { first_row, first_column } = origin;
    let width = T::Simd::WIDTH;
    // SAFETY: a packed panel begins at every multiple of its width and holds `steps` rows of it; per-column data is
    // padded to whole panels; the row and column ranges exist by the caller's promise.
    unsafe {
        let operands = Operands {
            a: args.x.add(first_row * args.x_stride),
            a_stride: args.x_stride,
            b: matrix.panel_at(first_column),
            b_stride: VECTORS * width * T::WEIGHT_BYTES,
            steps: matrix.steps,
        };
        let sums = accumulate::<T, ROWS, VECTORS>(operands);
        for (row, vectors) in sums.iter().enumerate() {
            let out = args.out.cast::<S::Element>().add((first_row + row) * args.out_stride + first_column);
            let scale = if args.row_scales.is_null() { 1.0 } else { *args.row_scales.add(first_row + row) };
            for (vector, sum) in vectors.iter().enumerate() {
                let offset = vector * width;
                if first_column + offset >= matrix.outputs {
                    break;
                }
                let left = matrix.outputs - first_column - offset;
                let columns = Columns {
                    bias: matrix.bias.as_ptr().add(first_column + offset),
                    scales: matrix.scales.as_ptr().wrapping_add(first_column + offset),
                    offsets: matrix.offsets.as_ptr().wrapping_add(first_column + offset),
                };
                let value = T::finish(*sum, columns, scale);
                let value = if matrix.activation == Activation::Gelu { T::gelu(value) } else { value };
                S::store_up_to(value, out.add(offset), left);
            }
        }
    }
}

/// The operands of a tile. Strides are in bytes.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Row-major rows of activations.
    pub(super) a: *const u8,
    pub(super) a_stride: usize,
    /// `steps` rows of weights.
    pub(super) b: *const u8,
    pub(super) b_stride: usize,
    pub(super) steps: usize,
}

/// `sums[row][vector] = Σ_k a[row][k] · b[k][vector]`, in the order of k. The sums are returned by value and not
/// written through a reference, so that they stay in registers.
///
/// # Safety
/// As [`Simd`]; `a` holds `ROWS` rows of `steps` groups, `b` holds `steps` rows of `VECTORS` vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<T: MicroKernel, const ROWS: usize, const VECTORS: usize>(
    operands: Operands,
) -> [[T::Sum; VECTORS]; ROWS] {
    let Operands { mut a, a_stride, mut b, b_stride, steps } = operands;
    // SAFETY: the caller's promise.
    let mut sums = [[unsafe { T::zero() }; VECTORS]; ROWS];
    for _ in 0..steps {
        // SAFETY: inside the operands, by the caller's promise.
        unsafe {
            let mut weights = [T::weights(b); VECTORS];
            for (vector, weights) in weights.iter_mut().enumerate().skip(1) {
                *weights = T::weights(b.add(vector * T::Simd::WIDTH * T::WEIGHT_BYTES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let group = T::group(a.add(row * a_stride));
                for vector in 0..VECTORS {
                    sums[vector] = T::dot(group, weights[vector], sums[vector]);
                }
            }
            a = a.add(T::GROUP_BYTES);
            b = b.add(b_stride);
        }
    }
    sums
}
