//! exp and activation functions on vectors. exp and GELU have two implementations: one as exact as f32 allows, and one
//! at half the cost for results that are rounded to bf16 or eight bits afterwards.

use super::simd::Simd;

/// e^x, relative error below 2e-7 on [-87, 88]; below -87 the value of -87 (1.6e-38, negligible beside 1). NaN
/// stays NaN, so that an invalid value reaches the result.
///
/// Range reduction x = n·ln2 + r with ln2 in two parts, then the minimax polynomial of the Cephes library's
/// `expf` on |r| ≤ ln2/2.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let x = L::splat(-87.0).max(x);
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(L::splat(-0.693_359_4), x);
        let r = n.mul_add(L::splat(2.121_944_4e-4), r);
        let mut p = L::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, L::splat(coefficient));
        }
        p.mul_add(r.mul(r), r.add(L::splat(1.0))).mul(n.exp2_int())
    }
}

/// e^x with a relative error below 1.1e-4, a twentieth of bf16's rounding: 2^n · p(f) with x·log₂e = n + f, and p
/// the cubic with p(0) = 1 that is nearest to 2^f on |f| ≤ ½ in relative error. NaN stays NaN.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp_rough<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let y = L::splat(-126.0).max(x.mul(L::splat(std::f32::consts::LOG2_E)));
        let n = y.round();
        let f = y.sub(n);
        let mut p = L::splat(5.500_891e-2);
        for coefficient in [2.422_109_8e-1, 6.932_83e-1, 1.0] {
            p = p.mul_add(f, L::splat(coefficient));
        }
        p.mul(n.exp2_int())
    }
}

/// Exact GELU: x/2 · (1 + erf(x/√2)), with erf by formula 7.1.26 of Abramowitz and Stegun, whose absolute
/// error is below 1.5e-7; the result's is below 1.2e-7·|x|.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn gelu<L: Simd>(x: L) -> L {
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

/// x / (1 + e^-x), also called swish, with an error of a few roundings.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn silu<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe { x.mul(sigmoid(x)) }
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))), computed as x times the sigmoid of twice the argument of tanh.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        // 2·√(2/π)
        let inner = x.mul(x).mul_add(L::splat(0.044_715), L::splat(1.0)).mul(L::splat(1.595_769_2));
        x.mul(sigmoid(x.mul(inner)))
    }
}

/// 1 / (1 + e^-x).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn sigmoid<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let one = L::splat(1.0);
        // `exp` is defined up to 88. The sigmoid of a larger argument is 0 to within 2e-38.
        let power = exp(L::splat(0.0).sub(x).min(L::splat(87.0)));
        one.div(power.add(one))
    }
}

/// Beyond ±4.25, GELU equals x or 0 to within 5e-5.
const TAIL: f32 = 4.25;

/// GELU with an absolute error of 9e-5: x · (½ + x·p(x²)) on |x| ≤ 4.25 with p(u) = ½/4.25 + (u - 4.25²)·q(u), so that
/// the ends equal x and 0 exactly; q has degree six, from a minimax fit of the product.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn gelu_rough<L: Simd>(x: L) -> L {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let inside = x.min(L::splat(TAIL)).max(L::splat(-TAIL));
        let u = inside.mul(inside);
        let mut q = L::splat(-8.460_295e-10);
        for coefficient in
            [6.042_611e-8, -1.847_332_7e-6, 3.215_930_7e-5, -3.595_674e-4, 2.763_125_6e-3, -1.554_452_4e-2]
        {
            q = q.mul_add(u, L::splat(coefficient));
        }
        let p = q.mul_add(u.sub(L::splat(TAIL * TAIL)), L::splat(0.5 / TAIL));
        x.mul(inside.mul_add(p, L::splat(0.5)))
    }
}
