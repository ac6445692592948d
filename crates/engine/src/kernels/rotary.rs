//! Rotary positions: each head's numbers, as pairs (the first half with the second), are turned by angles that grow
//! with the token's position.

use super::simd::{AsF32, Simd, Store, part};

/// Turns all heads of one token; made by [`super::Kernels::rotate`], which checks the lengths.
pub(crate) struct Rotation {
    pub(super) heads: usize,
    /// Numbers in a head.
    pub(super) width: usize,
    /// `[heads × width]`
    pub(super) x: *mut f32,
    /// `[width]`: the cosines of the pairs' angles, then their sines.
    pub(super) angles: *const f32,
}

/// (a, b) becomes (a·cos - b·sin, b·cos + a·sin).
///
/// # Safety
/// As [`Simd`]; `x` and `angles` are as [`Rotation`] says.
#[inline(always)]
pub(super) unsafe fn run<L: Simd>(call: &Rotation) {
    let Rotation { heads, width, x, angles } = *call;
    let half = width / 2;
    for head in 0..heads {
        for at in (0..half).step_by(L::WIDTH) {
            // SAFETY: inside the head, by the caller's promise; `part` and `put` never go past a half's end.
            unsafe {
                let (a, left) = (x.add(head * width + at), half - at);
                let b = a.add(half);
                let (cos, sin) = (part::<L>(angles.add(at), left), part::<L>(angles.add(half + at), left));
                let (first, second) = (part::<L>(a, left), part::<L>(b, left));
                AsF32::put(first.mul(cos).sub(second.mul(sin)), a, left);
                AsF32::put(second.mul(cos).add(first.mul(sin)), b, left);
            }
        }
    }
}
