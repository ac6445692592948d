//! Operations on single rows: norms, and rounding to bf16.

use super::simd::{AsF32, Simd, Store, load_up_to};

/// The arguments of `x = norm(x + residual)`, row by row. Built by [`super::Kernels::norm`], which checks the lengths.
pub(crate) struct NormArgs<'a> {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) x: *mut f32,
    /// Same length as `x`, or null.
    pub(super) residual: *const f32,
    pub(super) norm: &'a Norm,
}

/// A norm's weights.
pub(crate) struct Norm {
    /// `[width]`
    pub(crate) gamma: Vec<f32>,
    /// `[width]` for a LayerNorm; `None` for an RMSNorm.
    pub(crate) beta: Option<Vec<f32>>,
    pub(crate) epsilon: f32,
}

/// Computes a LayerNorm or an RMSNorm.
///
/// # Safety
/// As [`Simd`]; `x` is valid for `rows × width` floats, `residual` too unless it is null, γ and β have `width`.
#[inline(always)]
pub(super) unsafe fn norm<L: Simd>(args: &NormArgs<'_>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match &args.norm.beta {
            Some(beta) => layer_norm::<L>(args, beta),
            None => rms_norm::<L>(args),
        }
    }
}

/// y = x / √(mean(x²) + ε) · γ, as transformers' `RMSNorm`.
///
/// # Safety
/// As [`norm`].
#[inline(always)]
unsafe fn rms_norm<L: Simd>(args: &NormArgs<'_>) {
    let NormArgs { rows, width, x, residual, norm } = *args;
    for row in 0..rows {
        // SAFETY: inside the rows, by the caller's promise; `load_up_to` and `store_up_to` never go past a row's end.
        unsafe {
            let x = x.add(row * width);
            let mut squares = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let mut value = load_up_to::<L>(x.add(at), left);
                if !residual.is_null() {
                    value = value.add(load_up_to::<L>(residual.add(row * width + at), left));
                    AsF32::store_up_to(value, x.add(at), left);
                }
                squares = value.mul_add(value, squares);
            }
            let scale = L::splat(1.0 / (squares.reduce_sum() / width as f32 + norm.epsilon).sqrt());
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let gamma = load_up_to::<L>(norm.gamma.as_ptr().add(at), left);
                AsF32::store_up_to(load_up_to::<L>(x.add(at), left).mul(scale).mul(gamma), x.add(at), left);
            }
        }
    }
}

/// y = (x - mean) / √(variance + ε) · γ + β, with the population variance, as PyTorch's `LayerNorm`.
///
/// # Safety
/// As [`norm`].
#[inline(always)]
unsafe fn layer_norm<L: Simd>(args: &NormArgs<'_>, beta: &[f32]) {
    let NormArgs { rows, width, x, residual, norm } = *args;
    for row in 0..rows {
        // SAFETY: inside the rows, by the caller's promise; `load_up_to` and `store_up_to` never go past a row's end.
        unsafe {
            let x = x.add(row * width);
            let mut sum = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let mut value = load_up_to::<L>(x.add(at), left);
                if !residual.is_null() {
                    value = value.add(load_up_to::<L>(residual.add(row * width + at), left));
                    AsF32::store_up_to(value, x.add(at), left);
                }
                sum = sum.add(value);
            }
            let average = sum.reduce_sum() / width as f32;
            let mean = L::splat(average);
            let mut squares = L::splat(0.0);
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                // Lanes after the end of the row hold the mean, so that they add nothing.
                let value = if left >= L::WIDTH {
                    L::load(x.add(at))
                } else {
                    L::load_part(x.add(at), left, average)
                };
                let deviation = value.sub(mean);
                squares = deviation.mul_add(deviation, squares);
            }
            let scale = L::splat(1.0 / (squares.reduce_sum() / width as f32 + norm.epsilon).sqrt());
            for at in (0..width).step_by(L::WIDTH) {
                let left = width - at;
                let value = load_up_to::<L>(x.add(at), left).sub(mean).mul(scale);
                let gamma = load_up_to::<L>(norm.gamma.as_ptr().add(at), left);
                let beta = load_up_to::<L>(beta.as_ptr().add(at), left);
                AsF32::store_up_to(value.mul_add(gamma, beta), x.add(at), left);
            }
        }
    }
}

/// The arguments of a conversion of f32 rows to bf16 rows. Built by [`super::Kernels`], which checks the lengths.
pub(crate) struct RoundArgs {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × width]`
    pub(super) x: *const f32,
    /// `rows` rows of `stride` values
    pub(super) out: *mut u16,
    pub(super) stride: usize,
}

/// Rounds all rows to bf16.
///
/// # Safety
/// As [`Simd`]; `x` and `out` are as [`RoundArgs`] says.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 multiplies in bf16"))]
pub(super) unsafe fn round<L: Simd, S: Store<L, Element = u16>>(args: &RoundArgs) {
    let RoundArgs { rows, width, x, out, stride } = *args;
    for row in 0..rows {
        for at in (0..width).step_by(L::WIDTH) {
            // SAFETY: inside the rows, by the caller's promise.
            unsafe {
                let value = load_up_to::<L>(x.add(row * width + at), width - at);
                S::store_up_to(value, out.add(row * stride + at), width - at);
            }
        }
    }
}
