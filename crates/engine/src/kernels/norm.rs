//! Operations on single rows: norms, and the forms that products want activations in.

use super::simd::{AsF32, Simd, Store, part};

/// `x = (x + residual)` normalised over each row, scaled and shifted; made by [`super::Kernels::norm`], which checks
/// the lengths.
pub(crate) struct NormArgs<'a> {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) x: *mut f32,
    /// As long as `x`, or null.
    pub(super) residual: *const f32,
    pub(super) norm: &'a Norm,
}

/// A norm's weights.
pub(crate) struct Norm {
    /// `[width]`
    pub(crate) gamma: Vec<f32>,
    /// `[width]` for a LayerNorm, which takes the mean away first; none for a norm by the root mean square.
    pub(crate) beta: Option<Vec<f32>>,
    pub(crate) epsilon: f32,
}

/// # Safety
/// As [`Simd`]; `x` is valid for `rows × width` floats, `residual` too unless it is null, γ and β have `width`.
#[inline(always)]
pub(super) unsafe fn norm<L: Simd>(call: &NormArgs<'_>) {
    // SAFETY: passed on.
    unsafe {
        match &call.norm.beta {
            Some(beta) => layer_norm::<L>(call, beta),
            None => rms_norm::<L>(call),
        }
    }
}

/// y = x / √(mean(x²) + ε) · γ, as transformers' `RMSNorm`.
///
/// # Safety
/// As [`norm`].
#[inline(always)]
unsafe fn rms_norm<L: Simd>(call: &NormArgs<'_>) {
    let NormArgs { rows, width, x, residual, norm } = *call;
    for row in 0..rows {
        // SAFETY: inside the rows, by the caller's promise; `part` and `put` never go past a row's end.
        unsafe {
            let x = x.add(row * width);
            let mut squares = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let mut value = part::<L>(x.add(at), left);
                if !residual.is_null() {
                    value = value.add(part::<L>(residual.add(row * width + at), left));
                    AsF32::put(value, x.add(at), left);
                }
                squares = value.mul_add(value, squares);
            }
            let scale = L::splat(1.0 / (squares.reduce_sum() / width as f32 + norm.epsilon).sqrt());
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let gamma = part::<L>(norm.gamma.as_ptr().add(at), left);
                AsF32::put(part::<L>(x.add(at), left).mul(scale).mul(gamma), x.add(at), left);
            }
        }
    }
}

/// y = (x - mean) / √(variance + ε) · γ + β, with the population variance, as PyTorch's `LayerNorm`.
///
/// # Safety
/// As [`norm`].
#[inline(always)]
unsafe fn layer_norm<L: Simd>(call: &NormArgs<'_>, beta: &[f32]) {
    let NormArgs { rows, width, x, residual, norm } = *call;
    for row in 0..rows {
        // SAFETY: inside the rows, by the caller's promise; `part` and `put` never go past a row's end.
        unsafe {
            let x = x.add(row * width);
            let mut sum = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let mut value = part::<L>(x.add(at), left);
                if !residual.is_null() {
                    value = value.add(part::<L>(residual.add(row * width + at), left));
                    AsF32::put(value, x.add(at), left);
                }
                sum = sum.add(value);
            }
            let average = sum.reduce_sum() / width as f32;
            let mean = L::splat(average);
            let mut squares = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                // Simd beyond the row hold the mean, so that they add nothing.
                let value = if left >= L::WIDTH {
                    L::load(x.add(at))
                } else {
                    L::load_part(x.add(at), left, average)
                };
                let distance = value.sub(mean);
                squares = distance.mul_add(distance, squares);
            }
            let scale = L::splat(1.0 / (squares.reduce_sum() / width as f32 + norm.epsilon).sqrt());
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let value = part::<L>(x.add(at), left).sub(mean).mul(scale);
                let gamma = part::<L>(norm.gamma.as_ptr().add(at), left);
                let beta = part::<L>(beta.as_ptr().add(at), left);
                AsF32::put(value.mul_add(gamma, beta), x.add(at), left);
            }
        }
    }
}

/// Rows of f32 as rows of bf16; made by [`super::Kernels::prepare`].
pub(crate) struct Round {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × width]`
    pub(super) x: *const f32,
    /// `rows` rows of `stride` numbers
    pub(super) out: *mut u16,
    pub(super) stride: usize,
}

/// # Safety
/// As [`Simd`]; `x` and `out` are as [`Round`] says.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 multiplies in bf16"))]
pub(super) unsafe fn round<L: Simd, S: Store<L, Number = u16>>(call: &Round) {
    let Round { rows, width, x, out, stride } = *call;
    for row in 0..rows {
        for at in (0..width).step_by(L::WIDTH) {
            // SAFETY: inside the rows, by the caller's promise.
            unsafe {
                let value = part::<L>(x.add(row * width + at), width - at);
                S::put(value, out.add(row * stride + at), width - at);
            }
        }
    }
}
