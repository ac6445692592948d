//! The kernels for AVX-512: vectors of sixteen lanes, with bf16 and eight-bit products if the CPU has the instructions
//! for them (BF16, VNNI).

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is under the single contract of Simd and MicroKernel: the CPU has the features that `kernels` \
              asks for, and pointers are valid for what is read or written"
)]

use std::{arch::x86_64::*, mem::transmute};

use super::{
    ActivationDtype, AttentionArgs, AttentionFns, GluArgs, Kernels, MatMulArgs, NormArgs, Product,
    QuantiseArgs, RotaryArgs, RoundArgs, WeightDtype, attention, glu, matmul, norm, quantise, rotary,
    simd::{AsF32, Simd, Store},
    tile::{Columns, F32, MicroKernel, Widened},
};

#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

type Exact = F32<F32x16, 8, 3>;
type Narrow = Widened<F32x16, 8, 3>;

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
    pub(super) bf16: bool,
    pub(super) vnni: bool,
}

/// The kernels, or `None` if this CPU lacks the required instructions.
pub(super) fn kernels() -> Option<Kernels> {
    kernels_with(Extras { bf16: true, vnni: true })
}

/// The kernels, with those of the optional instructions that the CPU has.
pub(super) fn kernels_with(extras: Extras) -> Option<Kernels> {
    let base = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    base.then(|| {
        let bf16 = extras.bf16 && is_x86_feature_detected!("avx512bf16");
        let vnni = extras.vnni && is_x86_feature_detected!("avx512vnni");
        let quantise: unsafe fn(&QuantiseArgs) =
            with_features!("avx512f,avx512bw,avx512dq,avx512vl", QuantiseArgs, quantise::quantise::<F32x16>);
        Kernels {
            name: match (bf16, vnni) {
                (true, true) => "avx512-bf16-vnni",
                (true, false) => "avx512-bf16",
                (false, true) => "avx512-vnni",
                (false, false) => "avx512",
            },
            lanes: F32x16::WIDTH,
            f32: Product {
                activation_dtype: ActivationDtype::F32,
                weight_dtype: WeightDtype::F32,
                depth: 1,
                panel: Exact::VECTORS * 16,
                run: with_features!(
                    "avx512f,avx512bw,avx512dq,avx512vl",
                    MatMulArgs<'_>,
                    matmul::run::<Exact, AsF32>
                ),
                run_to_bf16: None,
                quantise,
            },
            bf16: if bf16 { bf16_product(quantise) } else { widened_bf16(quantise) },
            int8: match (vnni, bf16) {
                (true, true) => Product { run_to_bf16: Some(BYTES_TO_BF16), ..vnni_product(quantise) },
                (true, false) => vnni_product(quantise),
                (false, _) => word_product(quantise),
            },
            attention: AttentionFns {
                to_f32: with_features!(
                    "avx512f,avx512bw,avx512dq,avx512vl",
                    AttentionArgs<'_>,
                    attention::run::<Exact, AsF32, AsF32>
                ),
                to_bf16: None,
            },
            attention_bf16: bf16.then_some(ATTENTION_BF16),
            norm: with_features!("avx512f,avx512bw,avx512dq,avx512vl", NormArgs<'_>, norm::norm::<F32x16>),
            glu: with_features!("avx512f,avx512bw,avx512dq,avx512vl", GluArgs, glu::run::<F32x16>),
            rotate: with_features!("avx512f,avx512bw,avx512dq,avx512vl", RotaryArgs, rotary::run::<F32x16>),
            quantise,
            round: if bf16 { Some(ROUND) } else { None },
        }
    })
}

const BYTES_TO_BF16: unsafe fn(&MatMulArgs<'_>) = with_features!(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni",
    MatMulArgs<'_>,
    matmul::run::<Bytes, AsBf16>
);
const ROUND: unsafe fn(&RoundArgs) =
    with_features!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", RoundArgs, norm::round::<F32x16, AsBf16>);
const ATTENTION_BF16: AttentionFns = AttentionFns {
    to_f32: with_features!(
        "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
        AttentionArgs<'_>,
        attention::run::<Pairs, AsBf16, AsF32>
    ),
    to_bf16: Some(with_features!(
        "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
        AttentionArgs<'_>,
        attention::run::<Pairs, AsBf16, AsBf16>
    )),
};

fn bf16_product(quantise: unsafe fn(&QuantiseArgs)) -> Product {
    Product {
        activation_dtype: ActivationDtype::Bf16,
        weight_dtype: WeightDtype::Bf16,
        depth: Pairs::DEPTH,
        panel: Pairs::VECTORS * 16,
        run: with_features!(
            "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
            MatMulArgs<'_>,
            matmul::run::<Pairs, AsF32>
        ),
        run_to_bf16: Some(with_features!(
            "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
            MatMulArgs<'_>,
            matmul::run::<Pairs, AsBf16>
        )),
        quantise,
    }
}

fn widened_bf16(quantise: unsafe fn(&QuantiseArgs)) -> Product {
    Product {
        activation_dtype: ActivationDtype::F32,
        weight_dtype: WeightDtype::Bf16,
        depth: Narrow::DEPTH,
        panel: Narrow::VECTORS * 16,
        run: with_features!(
            "avx512f,avx512bw,avx512dq,avx512vl",
            MatMulArgs<'_>,
            matmul::run::<Narrow, AsF32>
        ),
        run_to_bf16: None,
        quantise,
    }
}

fn vnni_product(quantise: unsafe fn(&QuantiseArgs)) -> Product {
    Product {
        activation_dtype: ActivationDtype::U8,
        weight_dtype: WeightDtype::I8,
        depth: Bytes::DEPTH,
        panel: Bytes::VECTORS * 16,
        run: with_features!(
            "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
            MatMulArgs<'_>,
            matmul::run::<Bytes, AsF32>
        ),
        run_to_bf16: None,
        quantise,
    }
}

fn word_product(quantise: unsafe fn(&QuantiseArgs)) -> Product {
    Product {
        activation_dtype: ActivationDtype::U8,
        weight_dtype: WeightDtype::I8,
        depth: Words::DEPTH,
        panel: Words::VECTORS * 16,
        run: with_features!(
            "avx512f,avx512bw,avx512dq,avx512vl",
            MatMulArgs<'_>,
            matmul::run::<Words, AsF32>
        ),
        run_to_bf16: None,
        quantise,
    }
}

/// Stores bf16, rounded to nearest even.
struct AsBf16;

impl Store<F32x16> for AsBf16 {
    type Element = u16;

    #[inline(always)]
    unsafe fn store_up_to(value: F32x16, to: *mut u16, left: usize) {
        unsafe {
            let halves: __m256i = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value.0));
            if left >= 16 {
                _mm256_storeu_si256(to.cast(), halves);
            } else {
                _mm256_mask_storeu_epi16(to.cast(), lane_mask(left), halves);
            }
        }
    }
}

/// Multiplies two bf16 activations by two bf16 weights with `vdpbf16ps`.
struct Pairs;

impl MicroKernel for Pairs {
    type Simd = F32x16;
    type Group = __m512i;
    type Weights = __m512i;
    type Sum = F32x16;
    const ROWS: usize = 8;
    const VECTORS: usize = 3;
    const DEPTH: usize = 2;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 4;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> F32x16 {
        F32x16(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(group: __m512i, weights: __m512i, sum: F32x16) -> F32x16 {
        F32x16(unsafe { _mm512_dpbf16_ps(sum.0, bf16(group), bf16(weights)) })
    }

    #[inline(always)]
    unsafe fn finish(sum: F32x16, columns: Columns, _: f32) -> F32x16 {
        unsafe { sum.add(F32x16::load(columns.bias)) }
    }
}

/// Reinterprets the bits as pairs of bf16.
#[inline(always)]
unsafe fn bf16(bits: __m512i) -> __m512bh {
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

/// Multiplies four bytes of activations by four bytes of weights with `vpdpbusd`.
struct Bytes;

impl MicroKernel for Bytes {
    type Simd = F32x16;
    type Group = __m512i;
    type Weights = __m512i;
    type Sum = __m512i;
    const ROWS: usize = 8;
    const VECTORS: usize = 3;
    const DEPTH: usize = 4;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 4;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(group: __m512i, weights: __m512i, sum: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, group, weights) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m512i, columns: Columns, row_scale: f32) -> F32x16 {
        unsafe { scaled(sum, columns, row_scale) }
    }
}

/// Multiplies two bytes of activations by two bytes of weights, widened to sixteen bits. As exact as [`Bytes`], at half
/// the rate, for a CPU without VNNI.
struct Words;

impl MicroKernel for Words {
    type Simd = F32x16;
    type Group = __m512i;
    type Weights = __m512i;
    type Sum = __m512i;
    const ROWS: usize = 8;
    const VECTORS: usize = 3;
    const DEPTH: usize = 2;
    const GROUP_BYTES: usize = 2;
    const WEIGHT_BYTES: usize = 2;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> __m512i {
        unsafe {
            let [low, high] = from.cast::<[u8; 2]>().read_unaligned();
            _mm512_set1_epi32(i32::from(low) | i32::from(high) << 16)
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn dot(group: __m512i, weights: __m512i, sum: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(group, weights)) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m512i, columns: Columns, row_scale: f32) -> F32x16 {
        unsafe { scaled(sum, columns, row_scale) }
    }
}

/// Scales sums of bytes to f32 and adds the bias.
///
/// # Safety
/// As [`MicroKernel`].
#[inline(always)]
unsafe fn scaled(sum: __m512i, columns: Columns, row_scale: f32) -> F32x16 {
    unsafe {
        let sum = _mm512_sub_epi32(sum, _mm512_loadu_si512(columns.offsets.cast()));
        let scale = F32x16::load(columns.scales).mul(F32x16::splat(row_scale));
        F32x16(_mm512_cvtepi32_ps(sum)).mul_add(scale, F32x16::load(columns.bias))
    }
}

/// A mask of the first `count` lanes.
#[inline(always)]
fn lane_mask(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

impl Simd for F32x16 {
    const WIDTH: usize = 16;

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
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lane_mask(count), from) })
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, lane_mask(count), self.0) }
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
    unsafe fn exp2_int(self) -> Self {
        Self(unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), self.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn butterfly<const DISTANCE: usize>(self) -> Self {
        Self(unsafe {
            match DISTANCE {
                1 => _mm512_permute_ps::<0b10_11_00_01>(self.0),
                2 => _mm512_permute_ps::<0b01_00_11_10>(self.0),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0),
                _ => _mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0),
            }
        })
    }

    #[inline(always)]
    unsafe fn select<const DISTANCE: usize>(self, other: Self) -> Self {
        Self(unsafe {
            match DISTANCE {
                1 => _mm512_mask_blend_ps(0xaaaa, self.0, other.0),
                2 => _mm512_mask_blend_ps(0xcccc, self.0, other.0),
                4 => _mm512_mask_blend_ps(0xf0f0, self.0, other.0),
                _ => _mm512_mask_blend_ps(0xff00, self.0, other.0),
            }
        })
    }

    #[inline(always)]
    unsafe fn keep_first(self, count: usize, other: Self) -> Self {
        Self(unsafe { _mm512_mask_blend_ps(lane_mask(count), other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}
