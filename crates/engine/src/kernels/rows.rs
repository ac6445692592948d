//! Operations on single rows: LayerNorm and softmax.

use super::lanes::{Lanes, exp};

/// `x = (x + residual)` normalised over each row, scaled and shifted; made by [`super::Kernels::layer_norm`],
/// which checks the lengths.
pub(crate) struct LayerNorm<'a> {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) x: *mut f32,
    pub(super) residual: &'a [f32],
    pub(super) norm: &'a Norm,
}

/// A LayerNorm's weights.
pub(crate) struct Norm {
    /// `[width]`
    pub(crate) gamma: Vec<f32>,
    /// `[width]`
    pub(crate) beta: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// y = (x - mean) / √(variance + ε) · γ + β, with the population variance, as PyTorch's `LayerNorm`.
///
/// # Safety
/// As [`Lanes`]; `x` is valid for `rows × width` floats, `residual` has as many, γ and β have `width`.
#[inline(always)]
pub(super) unsafe fn layer_norm<L: Lanes>(call: &LayerNorm<'_>) {
    let LayerNorm { rows, width, x, residual, norm } = *call;
    for row in 0..rows {
        // SAFETY: inside the rows, by the caller's promise; `part` never reads or writes past a row's end.
        unsafe {
            let x = x.add(row * width);
            let residual = residual.as_ptr().add(row * width);
            let mut sum = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let value = part::<L>(x.add(at), left).add(part::<L>(residual.add(at), left));
                put(value, x.add(at), left);
                sum = sum.add(value);
            }
            let mean = L::splat(sum.sum() / width as f32);
            let mut squares = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                // Lanes beyond the row hold the mean, so that they add nothing.
                let value = if left >= L::WIDTH {
                    L::load(x.add(at))
                } else {
                    L::load_part(x.add(at), left, sum.sum() / width as f32)
                };
                let distance = value.sub(mean);
                squares = distance.mul_add(distance, squares);
            }
            let scale = L::splat(1.0 / (squares.sum() / width as f32 + norm.epsilon).sqrt());
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let value = part::<L>(x.add(at), left).sub(mean).mul(scale);
                let gamma = part::<L>(norm.gamma.as_ptr().add(at), left);
                let beta = part::<L>(norm.beta.as_ptr().add(at), left);
                put(value.mul_add(gamma, beta), x.add(at), left);
            }
        }
    }
}

/// The row's softmax in place: e^(x - max) / Σ.
///
/// # Safety
/// As [`Lanes`]; `x` is valid for `width` floats, at least one.
#[inline(always)]
pub(super) unsafe fn softmax<L: Lanes>(x: *mut f32, width: usize) {
    // SAFETY: inside the row, by the caller's promise.
    unsafe {
        let mut largest = L::splat(f32::NEG_INFINITY);
        for at in (0..width).step_by(L::WIDTH) {
            largest = largest.max(L::load_part(x.add(at), width - at, f32::NEG_INFINITY));
        }
        let largest = L::splat(largest.largest());
        let mut sum = 0.0;
        let mut vector_sum = L::splat(0.0);
        for at in (0..width).step_by(L::WIDTH) {
            let left = width - at;
            let value = exp(part::<L>(x.add(at), left).sub(largest));
            put(value, x.add(at), left);
            if left >= L::WIDTH {
                vector_sum = vector_sum.add(value);
            } else {
                sum = L::load_part(x.add(at), left, 0.0).sum();
            }
        }
        let scale = L::splat(1.0 / (vector_sum.sum() + sum));
        for at in (0..width).step_by(L::WIDTH) {
            let left = width - at;
            put(part::<L>(x.add(at), left).mul(scale), x.add(at), left);
        }
    }
}

/// A whole vector, or what is left of a row, with zeros behind.
///
/// # Safety
/// As [`Lanes`]; `from` is valid for `left` floats.
#[inline(always)]
unsafe fn part<L: Lanes>(from: *const f32, left: usize) -> L {
    // SAFETY: passed on.
    unsafe { if left >= L::WIDTH { L::load(from) } else { L::load_part(from, left, 0.0) } }
}

/// Writes a whole vector, or what is left of a row.
///
/// # Safety
/// As [`Lanes`]; `to` is valid for `left` floats.
#[inline(always)]
pub(super) unsafe fn put<L: Lanes>(value: L, to: *mut f32, left: usize) {
    // SAFETY: passed on.
    unsafe { if left >= L::WIDTH { value.store(to) } else { value.store_part(to, left) } }
}
