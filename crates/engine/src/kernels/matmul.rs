//! The matrix product that nearly all time is spent in: rows of activations times packed weights.
//!
//! Weights are packed once into panels of `PANEL_VECTORS` vectors of output columns, so that the innermost
//! loop reads them in order: one step of it loads a panel row, and for each of `ROWS` rows broadcasts one
//! activation and multiplies. An output is one chain of multiply-adds over k in order, starting at the bias,
//! whatever tile it falls in: that is why a text's vector does not depend on its batch mates.

use super::lanes::{Lanes, gelu};

/// A weight matrix in panels, with its bias.
pub(crate) struct PackedMatrix {
    /// `[panels][inputs][panel]`; columns beyond `outputs` are zero.
    weights: Vec<f32>,
    /// `[panels × panel]`, zero beyond `outputs`.
    bias: Vec<f32>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Columns in a panel.
    pub(super) panel: usize,
}

impl PackedMatrix {
    /// Packs parts of `[outputs × inputs]` row-major (as PyTorch keeps a linear layer), stacked along the
    /// outputs, each with its bias and a factor for both.
    pub(crate) fn pack(parts: &[Part<'_>], inputs: usize, panel: usize) -> Self {
        let outputs: usize = parts.iter().map(|part| part.bias.len()).sum();
        let panels = outputs.div_ceil(panel);
        let (mut weights, mut bias) = (vec![0.0; panels * inputs * panel], vec![0.0; panels * panel]);
        let mut column = 0;
        for part in parts {
            for (row, b) in part.weight.chunks_exact(inputs).zip(part.bias) {
                bias[column] = b * part.factor;
                let (in_panel, lane) = (column / panel, column % panel);
                let target = &mut weights[in_panel * inputs * panel..][..inputs * panel];
                for (slot, w) in target[lane..].iter_mut().step_by(panel).zip(row) {
                    *slot = w * part.factor;
                }
                column += 1;
            }
        }
        Self { weights, bias, inputs, outputs, panel }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.weights) + size_of_val(&*self.bias)
    }
}

/// One linear layer among those packed together.
pub(crate) struct Part<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) factor: f32,
}

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
    pub(super) x: &'a [f32],
    pub(super) matrix: &'a PackedMatrix,
    pub(super) activation: Activation,
    pub(super) out: *mut f32,
}

/// # Safety
/// As [`Lanes`]; `x` has `rows × inputs` floats, `out` is valid for writing `rows × outputs`, and the matrix
/// was packed for panels of `L::PANEL_VECTORS × L::WIDTH`.
#[inline(always)]
pub(super) unsafe fn run<L: Lanes>(call: &MatMul<'_>) {
    let MatMul { rows, matrix, .. } = *call;
    let panel = L::PANEL_VECTORS * L::WIDTH;
    // All rows for one panel before the next: the panel (tens of kilobytes) stays in the second-level cache.
    for first_column in (0..matrix.outputs).step_by(panel) {
        for first_row in (0..rows).step_by(L::ROWS) {
            let place = Place { first_row, first_column };
            // SAFETY: the caller's promise is passed on; rows and columns stay inside the matrix.
            unsafe {
                match (rows - first_row).min(L::ROWS) {
                    1 => tile_of_width::<L, 1>(call, place),
                    2 => tile_of_width::<L, 2>(call, place),
                    3 => tile_of_width::<L, 3>(call, place),
                    4 => tile_of_width::<L, 4>(call, place),
                    5 => tile_of_width::<L, 5>(call, place),
                    6 => tile_of_width::<L, 6>(call, place),
                    7 => tile_of_width::<L, 7>(call, place),
                    _ => tile_of_width::<L, 8>(call, place),
                }
            }
        }
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
unsafe fn tile_of_width<L: Lanes, const ROWS: usize>(call: &MatMul<'_>, place: Place) {
    // SAFETY: passed on.
    unsafe {
        if L::PANEL_VECTORS == 3 { tile::<L, ROWS, 3>(call, place) } else { tile::<L, ROWS, 2>(call, place) }
    }
}

/// # Safety
/// As [`tile_of_width`].
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(call: &MatMul<'_>, place: Place) {
    let (inputs, outputs) = (call.matrix.inputs, call.matrix.outputs);
    let Place { first_row, first_column } = place;
    let columns = (outputs - first_column).min(VECTORS * L::WIDTH);
    // SAFETY: a packed panel begins at every multiple of its width and holds `inputs` rows of it; bias is
    // padded to whole panels; the row and column ranges exist by the caller's promise.
    unsafe {
        let mut accumulators = [[L::splat(0.0); VECTORS]; ROWS];
        for vector in 0..VECTORS {
            let bias = L::load(call.matrix.bias.as_ptr().add(first_column + vector * L::WIDTH));
            for row in &mut accumulators {
                row[vector] = bias;
            }
        }
        let operands = Operands {
            a: call.x.as_ptr().add(first_row * inputs),
            a_stride: inputs,
            b: call.matrix.weights.as_ptr().add(first_column * inputs),
            b_stride: VECTORS * L::WIDTH,
            depth: inputs,
        };
        accumulate::<L, ROWS, VECTORS>(&mut accumulators, operands);
        for (row, vectors) in accumulators.iter().enumerate() {
            let out = call.out.add((first_row + row) * outputs + first_column);
            for (vector, value) in vectors.iter().enumerate() {
                let value = if call.activation == Activation::Gelu { gelu(*value) } else { *value };
                let left = columns.saturating_sub(vector * L::WIDTH);
                if left >= L::WIDTH {
                    value.store(out.add(vector * L::WIDTH));
                } else if left > 0 {
                    value.store_part(out.add(vector * L::WIDTH), left);
                }
            }
        }
    }
}

/// Where a tile's operands lie, in floats.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Row-major rows of activations.
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// `depth` rows of the panel.
    pub(super) b: *const f32,
    pub(super) b_stride: usize,
    pub(super) depth: usize,
}

/// `accumulators[row][vector] += Σ_k a[row][k] · b[k][vector]`, in the order of k.
///
/// # Safety
/// As [`Lanes`]; `a` holds `ROWS` rows of `depth`, `b` holds `depth` rows of `VECTORS` vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    accumulators: &mut [[L; VECTORS]; ROWS],
    operands: Operands,
) {
    let Operands { a, a_stride, mut b, b_stride, depth } = operands;
    for k in 0..depth {
        // SAFETY: inside the operands, by the caller's promise.
        unsafe {
            let mut panel_row = [L::splat(0.0); VECTORS];
            for (vector, slot) in panel_row.iter_mut().enumerate() {
                *slot = L::load(b.add(vector * L::WIDTH));
            }
            for row in 0..ROWS {
                let factor = L::splat(*a.add(row * a_stride + k));
                for vector in 0..VECTORS {
                    accumulators[row][vector] = factor.mul_add(panel_row[vector], accumulators[row][vector]);
                }
            }
            b = b.add(b_stride);
        }
    }
}
