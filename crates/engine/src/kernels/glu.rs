//! Gated linear units: the activation of one half of a row, times the other half.

use super::{
    activations::{gelu, gelu_rough, gelu_tanh, silu},
    simd::{AsF32, Simd, Store, load_up_to},
};

/// The activation of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GluActivation {
    Gelu,
    /// The tanh approximation of GELU, as PyTorch's `gelu(approximate="tanh")`.
    GeluTanh,
    Silu,
}

/// The arguments of `out = activation(x[..width]) · x[width..2·width]` for each row. Built by [`super::Kernels::glu`],
/// which checks the lengths.
pub(crate) struct GluArgs {
    pub(super) activation: GluActivation,
    /// Whether to compute exactly; a result that is rounded afterwards does not need it.
    pub(super) exact: bool,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × 2·width]`
    pub(super) x: *const f32,
    /// `[rows × width]`
    pub(super) out: *mut f32,
}

/// Computes all rows.
///
/// # Safety
/// As [`Simd`]; `x` and `out` are as [`GluArgs`] says.
#[inline(always)]
pub(super) unsafe fn run<L: Simd>(args: &GluArgs) {
    let GluArgs { activation, exact, rows, width, x, out } = *args;
    for row in 0..rows {
        for at in (0..width).step_by(L::WIDTH) {
            // SAFETY: inside the rows, by the caller's promise; `load_up_to` and `store_up_to` never go past a half's
            // end.
            unsafe {
                let (first, left) = (x.add(2 * row * width + at), width - at);
                let value = load_up_to::<L>(first, left);
                let activated = match activation {
                    GluActivation::Gelu if exact => gelu(value),
                    GluActivation::Gelu => gelu_rough(value),
                    GluActivation::GeluTanh => gelu_tanh(value),
                    GluActivation::Silu => silu(value),
                };
                let value = activated.mul(load_up_to::<L>(first.add(width), left));
                AsF32::store_up_to(value, out.add(row * width + at), left);
            }
        }
    }
}
