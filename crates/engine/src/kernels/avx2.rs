//! The kernels for AVX2 with FMA: vectors of eight.

use std::arch::x86_64::{
    __m256, __m256i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_max_ps, _mm_max_ss, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_andnot_ps,
    _mm256_blendv_ps, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_cvtps_epi32,
    _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_maskload_ps,
    _mm256_maskstore_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Attention, Kernels, LayerNorm, MatMul, attention, lanes::Lanes, matmul, rows};

#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// The kernels, when this CPU has the instructions.
pub(super) fn kernels() -> Option<&'static Kernels> {
    (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&KERNELS)
}

const KERNELS: Kernels = Kernels {
    name: "avx2",
    panel: F32x8::PANEL_VECTORS * F32x8::WIDTH,
    lanes: F32x8::WIDTH,
    // SAFETY of the three: `kernels` gives them out only where AVX2 and FMA are; pointers as the argument types say.
    matmul: |call: &MatMul| unsafe { run_matmul(call) },
    attention: |call: &Attention| unsafe { run_attention(call) },
    layer_norm: |call: &LayerNorm| unsafe { run_layer_norm(call) },
};

#[target_feature(enable = "avx2,fma")]
unsafe fn run_matmul(call: &MatMul) {
    // SAFETY: the caller's promises are passed on; the features are enabled here.
    unsafe { matmul::run::<F32x8>(call) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn run_attention(call: &Attention) {
    // SAFETY: as above.
    unsafe { attention::run::<F32x8>(call) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn run_layer_norm(call: &LayerNorm) {
    // SAFETY: as above.
    unsafe { rows::layer_norm::<F32x8>(call) }
}

/// All bits set in the first `count` lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    unsafe {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }
}

// SAFETY of every block below: the trait's contract, AVX2, FMA and valid pointers.
impl Lanes for F32x8 {
    const WIDTH: usize = 8;
    const ROWS: usize = 6;
    const PANEL_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self {
        unsafe {
            let mask = first(count);
            Self(_mm256_blendv_ps(
                _mm256_set1_ps(fill),
                _mm256_maskload_ps(from, mask),
                _mm256_castsi256_ps(mask),
            ))
        }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        unsafe { _mm256_maskstore_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, summand.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        unsafe {
            // The exponent field of 2^n is n + 127.
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
