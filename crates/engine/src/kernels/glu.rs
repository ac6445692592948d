//! Gated feed-forward layers: one half of a product, through an activation, times the other half.

use super::{
    activations::{gelu, gelu_rough, gelu_tanh, silu},
    simd::{AsF32, Simd, Store, part},
};

/// What the gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GluActivation {
    Gelu,
    /// GELU by tanh, as PyTorch's `gelu(approximate="tanh")`.
    GeluTanh,
    Silu,
}

/// `out = activation(x[..width]) · x[width..2·width]` for each row; made by [`super::Kernels::gate`], which checks the
/// lengths.
pub(crate) struct Gating {
    pub(super) gate: GluActivation,
    /// Whether the result is not rounded right afterwards.
    pub(super) exact: bool,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × 2·width]`
    pub(super) x: *const f32,
    /// `[rows × width]`
    pub(super) out: *mut f32,
}

/// # Safety
/// As [`Simd`]; `x` and `out` are as [`Gating`] says.
#[inline(always)]
pub(super) unsafe fn run<L: Simd>(call: &Gating) {
    let Gating { gate, exact, rows, width, x, out } = *call;
    for row in 0..rows {
        for at in (0..width).step_by(L::WIDTH) {
            // SAFETY: inside the rows, by the caller's promise; `part` and `put` never go past a half's end.
            unsafe {
                let (first, left) = (x.add(2 * row * width + at), width - at);
                let value = part::<L>(first, left);
                let activated = match gate {
                    GluActivation::Gelu if exact => gelu(value),
                    GluActivation::Gelu => gelu_rough(value),
                    GluActivation::GeluTanh => gelu_tanh(value),
                    GluActivation::Silu => silu(value),
                };
                let value = activated.mul(part::<L>(first.add(width), left));
                AsF32::put(value, out.add(row * width + at), left);
            }
        }
    }
}
