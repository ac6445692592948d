//! Rotary position embeddings: the values of a head, as pairs of the first and the second half, are rotated by angles
//! that grow with the token's position.

use super::simd::{AsF32, Simd, Store, load_up_to};

/// The arguments of a rotation of all heads of one token. Built by [`super::Kernels::rotate`], which checks the
/// lengths.
pub(crate) struct RotaryArgs {
    pub(super) heads: usize,
    /// Width of a head.
    pub(super) width: usize,
    /// `[heads × width]`
    pub(super) x: *mut f32,
    /// `[width]`: the cosines of the pairs' angles, then their sines.
    pub(super) angles: *const f32,
}

/// Replaces each pair (a, b) by (a·cos - b·sin, b·cos + a·sin).
///
/// # Safety
/// As [`Simd`]; `x` and `angles` are as [`RotaryArgs`] says.
#[inline(always)]
pub(super) unsafe fn run<L: Simd>(args: &RotaryArgs) {
    let RotaryArgs { heads, width, x, angles } = *args;
    let half = width / 2;
    for head in 0..heads {
        for at in (0..half).step_by(L::WIDTH) {
            // SAFETY: inside the head, by the caller's promise; `load_up_to` and `store_up_to` never go past a half's
            // end.
            unsafe {
                let (a, left) = (x.add(head * width + at), half - at);
                let b = a.add(half);
                let (cos, sin) =
                    (load_up_to::<L>(angles.add(at), left), load_up_to::<L>(angles.add(half + at), left));
                let (first, second) = (load_up_to::<L>(a, left), load_up_to::<L>(b, left));
                AsF32::store_up_to(first.mul(cos).sub(second.mul(sin)), a, left);
                AsF32::store_up_to(second.mul(cos).add(first.mul(sin)), b, left);
            }
        }
    }
}
