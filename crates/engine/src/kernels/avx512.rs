//! The kernels for AVX-512F: vectors of sixteen.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm512_abs_ps, _mm512_add_ps,
    _mm512_div_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{Attention, Kernels, LayerNorm, MatMul, attention, lanes::Lanes, matmul, rows};

#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// The kernels, when this CPU has the instructions.
pub(super) fn kernels() -> Option<&'static Kernels> {
    is_x86_feature_detected!("avx512f").then_some(&KERNELS)
}

const KERNELS: Kernels = Kernels {
    name: "avx512",
    panel: F32x16::PANEL_VECTORS * F32x16::WIDTH,
    lanes: F32x16::WIDTH,
    // SAFETY of the three: `kernels` gives them out only where AVX-512F is; pointers as the argument types say.
    matmul: |call: &MatMul| unsafe { run_matmul(call) },
    attention: |call: &Attention| unsafe { run_attention(call) },
    layer_norm: |call: &LayerNorm| unsafe { run_layer_norm(call) },
};

#[target_feature(enable = "avx512f")]
unsafe fn run_matmul(call: &MatMul) {
    // SAFETY: the caller's promises are passed on; the feature is enabled here.
    unsafe { matmul::run::<F32x16>(call) }
}

#[target_feature(enable = "avx512f")]
unsafe fn run_attention(call: &Attention) {
    // SAFETY: as above.
    unsafe { attention::run::<F32x16>(call) }
}

#[target_feature(enable = "avx512f")]
unsafe fn run_layer_norm(call: &LayerNorm) {
    // SAFETY: as above.
    unsafe { rows::layer_norm::<F32x16>(call) }
}

/// The first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

// SAFETY of every block below: the trait's contract, AVX-512F and valid pointers.
impl Lanes for F32x16 {
    const WIDTH: usize = 16;
    const ROWS: usize = 8;
    const PANEL_VECTORS: usize = 3;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self {
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(count), from) })
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        Self(unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}
