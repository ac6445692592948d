//! The matrix product that nearly all time is spent in: rows of activations times packed weights.
//!
//! The innermost loop reads a panel of weights in order: one step of it loads a panel row, and for each row of
//! the tile broadcasts one group of activations and multiplies. An output is one chain of multiply-adds over k
//! in order, whatever tile it falls in: that is why a text's vector does not depend on its batch mates.

use super::{
    packed::PackedMatrix,
    simd::{Simd, Store},
    tile::{Columns, MAX_ROWS, MicroKernel},
};

/// What happens to an output before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// `out[rows × outputs] = activation(x[rows × inputs] · Wᵀ + bias)`, made by [`super::Kernels::matmul`], which
/// checks the lengths.
pub(crate) struct MatMul<'a> {
    pub(super) rows: usize,
    /// Activations in the form that the matrix wants.
    pub(super) x: *const u8,
    /// Bytes from one row of activations to the next.
    pub(super) x_stride: usize,
    /// One scale a row, for eight-bit activations; null for others.
    pub(super) row_scales: *const f32,
    pub(super) matrix: &'a PackedMatrix,
    /// f32 or bf16, as the entry point that is called says.
    pub(super) out: *mut u8,
    /// Numbers from one row of results to the next.
    pub(super) out_stride: usize,
}

/// # Safety
/// As [`Simd`]; `x` has `rows` rows of whole groups, `row_scales` a scale for each where the tile reads them,
/// `out` is valid for writing `rows × outputs` numbers of `S`, and the matrix was packed for `T`.
#[inline(always)]
pub(super) unsafe fn run<T: MicroKernel, S: Store<T::Simd>>(call: &MatMul<'_>) {
    const { assert!(T::ROWS <= MAX_ROWS && matches!(T::VECTORS, 2..=4), "tiles that the arms below know") }
    let panel = T::VECTORS * T::Simd::WIDTH;
    // All rows for one panel before the next: the panel (tens of kilobytes) stays in the nearest caches.
    for first_column in (0..call.matrix.outputs).step_by(panel) {
        for (first_row, rows) in tiles(call.rows, T::ROWS) {
            let place = Place { first_row, first_column };
            // SAFETY: the caller's promise is passed on; rows and columns stay inside the matrix.
            unsafe {
                match rows {
                    1 => tile_of_width::<T, S, 1>(call, place),
                    2 => tile_of_width::<T, S, 2>(call, place),
                    3 => tile_of_width::<T, S, 3>(call, place),
                    4 => tile_of_width::<T, S, 4>(call, place),
                    5 => tile_of_width::<T, S, 5>(call, place),
                    6 => tile_of_width::<T, S, 6>(call, place),
                    7 => tile_of_width::<T, S, 7>(call, place),
                    _ => tile_of_width::<T, S, MAX_ROWS>(call, place),
                }
            }
        }
    }
}

/// Tiles (first row, rows) of nearly equal height that cover `rows`: ten rows are 5 + 5 and not 8 + 2, because a
/// flat tile leaves the multipliers waiting.
#[inline(always)]
pub(super) fn tiles(rows: usize, most: usize) -> Tiles {
    Tiles { first: 0, end: rows, left: rows.div_ceil(most) }
}

/// Made by [`tiles`].
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

#[derive(Clone, Copy)]
struct Place {
    first_row: usize,
    first_column: usize,
}

/// # Safety
/// As [`run`]; `ROWS` rows from `place` exist.
#[inline(always)]
unsafe fn tile_of_width<T: MicroKernel, S: Store<T::Simd>, const ROWS: usize>(
    call: &MatMul<'_>,
    place: Place,
) {
    // SAFETY: passed on.
    unsafe {
        match T::VECTORS {
            4 => tile::<T, S, ROWS, 4>(call, place),
            3 => tile::<T, S, ROWS, 3>(call, place),
            _ => tile::<T, S, ROWS, 2>(call, place),
        }
    }
}

/// # Safety
/// As [`tile_of_width`].
#[inline(always)]
unsafe fn tile<T: MicroKernel, S: Store<T::Simd>, const ROWS: usize, const VECTORS: usize>(
    call: &MatMul<'_>,
    place: Place,
) {
    let matrix = call.matrix;
    let Place { first_row, first_column } = place;
    let width = T::Simd::WIDTH;
    // SAFETY: a packed panel begins at every multiple of its width and holds `steps` rows of it; what belongs to
    // columns is padded to whole panels; the row and column ranges exist by the caller's promise.
    unsafe {
        let operands = Operands {
            a: call.x.add(first_row * call.x_stride),
            a_stride: call.x_stride,
            b: matrix.panel_of(first_column),
            b_stride: VECTORS * width * T::WEIGHT_BYTES,
            steps: matrix.steps,
        };
        let sums = accumulate::<T, ROWS, VECTORS>(operands);
        for (row, vectors) in sums.iter().enumerate() {
            let out = call.out.cast::<S::Number>().add((first_row + row) * call.out_stride + first_column);
            let scale = if call.row_scales.is_null() { 1.0 } else { *call.row_scales.add(first_row + row) };
            for (vector, sum) in vectors.iter().enumerate() {
                let at = vector * width;
                if first_column + at >= matrix.outputs {
                    break;
                }
                let left = matrix.outputs - first_column - at;
                let columns = Columns {
                    bias: matrix.bias.as_ptr().add(first_column + at),
                    scales: matrix.scales.as_ptr().wrapping_add(first_column + at),
                    offsets: matrix.offsets.as_ptr().wrapping_add(first_column + at),
                };
                let value = T::finish(*sum, columns, scale);
                let value = if matrix.activation == Activation::Gelu { T::gelu(value) } else { value };
                S::put(value, out.add(at), left);
            }
        }
    }
}

/// Where a tile's operands lie, in bytes.
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

/// `sums[row][vector] = Σ_k a[row][k] · b[k][vector]`, in the order of k. The sums are returned and not written
/// through a reference, so that they live in registers.
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
