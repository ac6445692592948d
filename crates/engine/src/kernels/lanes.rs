//! One SIMD vector of f32, as the kernels see it. The kernels are written once over this trait; an
//! instruction set is one implementation of it and a few entry points that switch its features on.
//!
//! Every method is `unsafe` for one reason: an implementation may use instructions that the CPU must have.
//! The contract of all of them: the caller runs on a CPU with the implementation's features, and pointers are
//! valid for the number of floats read or written (no alignment is needed).

/// A vector of [`WIDTH`](Lanes::WIDTH) f32 lanes.
pub(crate) trait Lanes: Copy {
    /// Lanes in a vector.
    const WIDTH: usize;
    /// Rows of the matrix product's register tile, and vectors in each: as many accumulators as leave
    /// registers for the operands.
    const ROWS: usize;
    /// See [`ROWS`](Lanes::ROWS).
    const PANEL_VECTORS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `count` lanes from memory, the others `fill`; memory behind them is not touched.
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self;
    /// Writes the first `count` lanes; memory behind them is not touched.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + summand`; one rounding where the CPU has a fused instruction.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// The nearest whole numbers.
    unsafe fn round(self) -> Self;
    /// `2^n` for whole `n` in -126..=127.
    unsafe fn exp2_whole(self) -> Self;
    unsafe fn sum(self) -> f32;
    unsafe fn largest(self) -> f32;
}

/// e^x, relative error below 2e-7 on [-87, 88]; below -87 as at -87 (1.6e-38, nothing beside 1).
///
/// Range reduction x = n·ln2 + r with ln2 in two parts, then the minimax polynomial of the Cephes library's
/// `expf` on |r| ≤ ln2/2.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let x = x.max(L::splat(-87.0));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(L::splat(-0.693_359_375), x);
        let r = n.mul_add(L::splat(2.121_944_4e-4), r);
        let mut p = L::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1] {
            p = p.mul_add(r, L::splat(coefficient));
        }
        p.mul_add(r.mul(r), r.add(L::splat(1.0))).mul(n.exp2_whole())
    }
}

/// Exact GELU: x/2 · (1 + erf(x/√2)), with erf by formula 7.1.26 of Abramowitz and Stegun, whose absolute
/// error is below 1.5e-7; the result's is below 1.2e-7·|x|.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let one = L::splat(1.0);
        let z = x.abs().mul(L::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = one.div(z.mul_add(L::splat(0.327_591_1), one));
        let mut p = L::splat(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = p.mul_add(t, L::splat(coefficient));
        }
        let tail = p.mul(t).mul(exp(L::splat(0.0).sub(z.mul(z)))); // 1 - erf(z)
        let half = x.mul(L::splat(0.5));
        // x/2 + |x|/2 · erf(|x|/√2), because erf is odd.
        half.abs().mul_add(one.sub(tail), half)
    }
}
