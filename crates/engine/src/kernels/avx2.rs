//! The kernels for AVX2 with FMA: vectors of eight lanes. Eight-bit products use AVX-VNNI if the CPU has it.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is under the single contract of Simd and MicroKernel: the CPU has the features that `kernels` \
              asks for, and pointers are valid for what is read or written"
)]

use std::arch::x86_64::*;

use super::{
    ActivationDtype, AttentionArgs, AttentionFns, GluArgs, Kernels, MatMulArgs, NormArgs, Product,
    QuantiseArgs, RotaryArgs, WeightDtype, attention, glu, matmul, norm, quantise, rotary,
    simd::{AsF32, Simd},
    tile::{Columns, F32, MicroKernel, Widened},
};

#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

type Exact = F32<F32x8, 6, 2>;
type Narrow = Widened<F32x8, 6, 2>;

/// A function that runs a kernel with CPU features enabled.
macro_rules! with_features {
    ($features:literal, $args:ty, $kernel:path) => {{
        #[target_feature(enable = $features)]
        unsafe fn with_features(args: &$args) {
            unsafe { $kernel(args) }
        }
        with_features as unsafe fn(&$args)
    }};
}

/// Optional instructions beyond the required ones.
#[derive(Clone, Copy)]
pub(super) struct Extras {
    pub(super) vnni: bool,
}

/// The kernels, or `None` if this CPU lacks the required instructions.
pub(super) fn kernels() -> Option<Kernels> {
    kernels_with(Extras { vnni: true })
}

/// The kernels, with those of the optional instructions that the CPU has.
pub(super) fn kernels_with(extras: Extras) -> Option<Kernels> {
    let vnni = extras.vnni && is_x86_feature_detected!("avxvnni");
    (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then(|| {
        let quantise: unsafe fn(&QuantiseArgs) =
            with_features!("avx2,fma", QuantiseArgs, quantise::quantise::<F32x8>);
        Kernels {
            name: if vnni { "avx2-vnni" } else { "avx2" },
            lanes: F32x8::WIDTH,
            f32: Product {
                activation_dtype: ActivationDtype::F32,
                weight_dtype: WeightDtype::F32,
                depth: Exact::DEPTH,
                panel: Exact::VECTORS * 8,
                run: with_features!("avx2,fma", MatMulArgs<'_>, matmul::run::<Exact, AsF32>),
                run_to_bf16: None,
                quantise,
            },
            bf16: Product {
                activation_dtype: ActivationDtype::F32,
                weight_dtype: WeightDtype::Bf16,
                depth: Narrow::DEPTH,
                panel: Narrow::VECTORS * 8,
                run: with_features!("avx2,fma", MatMulArgs<'_>, matmul::run::<Narrow, AsF32>),
                run_to_bf16: None,
                quantise,
            },
            int8: Product {
                activation_dtype: ActivationDtype::U8,
                weight_dtype: WeightDtype::I8,
                depth: if vnni { Bytes::DEPTH } else { Words::DEPTH },
                panel: Words::VECTORS * 8,
                run: if vnni {
                    with_features!("avx2,fma,avxvnni", MatMulArgs<'_>, matmul::run::<Bytes, AsF32>)
                } else {
                    with_features!("avx2,fma", MatMulArgs<'_>, matmul::run::<Words, AsF32>)
                },
                run_to_bf16: None,
                quantise,
            },
            attention: AttentionFns {
                to_f32: with_features!("avx2,fma", AttentionArgs<'_>, attention::run::<Exact, AsF32, AsF32>),
                to_bf16: None,
            },
            attention_bf16: None,
            norm: with_features!("avx2,fma", NormArgs<'_>, norm::norm::<F32x8>),
            glu: with_features!("avx2,fma", GluArgs, glu::run::<F32x8>),
            rotate: with_features!("avx2,fma", RotaryArgs, rotary::run::<F32x8>),
            quantise,
            round: None,
        }
    })
}

/// Multiplies four bytes of activations by four bytes of weights with `vpdpbusd`.
struct Bytes;

impl MicroKernel for Bytes {
    type Simd = F32x8;
    type Group = __m256i;
    type Weights = __m256i;
    type Sum = __m256i;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const DEPTH: usize = 4;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 4;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(group: __m256i, weights: __m256i, sum: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sum, group, weights) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m256i, columns: Columns, row_scale: f32) -> F32x8 {
        unsafe { scaled(sum, columns, row_scale) }
    }
}

/// Multiplies two bytes of activations by two bytes of weights, widened to sixteen bits. As exact as [`Bytes`], at half
/// the rate, for a CPU without AVX-VNNI.
struct Words;

impl MicroKernel for Words {
    type Simd = F32x8;
    type Group = __m256i;
    type Weights = __m256i;
    type Sum = __m256i;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const DEPTH: usize = 2;
    const GROUP_BYTES: usize = 2;
    const WEIGHT_BYTES: usize = 2;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> __m256i {
        unsafe {
            let [low, high] = from.cast::<[u8; 2]>().read_unaligned();
            _mm256_set1_epi32(i32::from(low) | i32::from(high) << 16)
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn dot(group: __m256i, weights: __m256i, sum: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(group, weights)) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m256i, columns: Columns, row_scale: f32) -> F32x8 {
        unsafe { scaled(sum, columns, row_scale) }
    }
}

/// Scales sums of bytes to f32 and adds the bias.
///
/// # Safety
/// As [`MicroKernel`].
#[inline(always)]
unsafe fn scaled(sum: __m256i, columns: Columns, row_scale: f32) -> F32x8 {
    unsafe {
        let sum = _mm256_sub_epi32(sum, _mm256_loadu_si256(columns.offsets.cast()));
        let scale = F32x8::load(columns.scales).mul(F32x8::splat(row_scale));
        F32x8(_mm256_cvtepi32_ps(sum)).mul_add(scale, F32x8::load(columns.bias))
    }
}

/// A mask with all bits set in the first `count` lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn lane_mask(count: usize) -> __m256i {
    unsafe {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }
}

impl Simd for F32x8 {
    const WIDTH: usize = 8;

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
            let mask = lane_mask(count);
            Self(_mm256_blendv_ps(
                _mm256_set1_ps(fill),
                _mm256_maskload_ps(from, mask),
                _mm256_castsi256_ps(mask),
            ))
        }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        unsafe { _mm256_maskstore_ps(to, lane_mask(count), self.0) }
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
    unsafe fn exp2_int(self) -> Self {
        unsafe {
            // The exponent field of 2^n is n + 127.
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        unsafe {
            let whole = _mm256_cvtps_epi32(self.0);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }

    #[inline(always)]
    unsafe fn butterfly<const DISTANCE: usize>(self) -> Self {
        Self(unsafe {
            match DISTANCE {
                1 => _mm256_permute_ps::<0b10_11_00_01>(self.0),
                2 => _mm256_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm256_permute2f128_ps::<1>(self.0, self.0),
            }
        })
    }

    #[inline(always)]
    unsafe fn select<const DISTANCE: usize>(self, other: Self) -> Self {
        Self(unsafe {
            match DISTANCE {
                1 => _mm256_blend_ps::<0b1010_1010>(self.0, other.0),
                2 => _mm256_blend_ps::<0b1100_1100>(self.0, other.0),
                _ => _mm256_blend_ps::<0b1111_0000>(self.0, other.0),
            }
        })
    }

    #[inline(always)]
    unsafe fn keep_first(self, count: usize, other: Self) -> Self {
        Self(unsafe { _mm256_blendv_ps(other.0, self.0, _mm256_castsi256_ps(lane_mask(count))) })
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
