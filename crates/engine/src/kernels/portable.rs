//! The kernels for any CPU: vectors of four lanes, written so that the compiler uses the 128-bit instructions of the
//! target. They have the same structure as the SIMD kernels.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is under the single contract of Simd: pointers valid for what is read or written"
)]

use super::{
    ActivationDtype, AttentionFns, Kernels, Product, WeightDtype, attention, glu, matmul, norm, quantise,
    rotary,
    simd::{AsF32, Simd},
    tile::{Columns, F32, MicroKernel, Widened},
};

#[derive(Clone, Copy)]
pub(crate) struct F32x4([f32; 4]);

type Exact = F32<F32x4, 4, 2>;
type Narrow = Widened<F32x4, 4, 2>;

// These kernels need no CPU feature, so the only contract is that pointers are valid as the argument types require.
pub(super) const KERNELS: Kernels = Kernels {
    name: "portable",
    lanes: F32x4::WIDTH,
    f32: Product {
        activation_dtype: ActivationDtype::F32,
        weight_dtype: WeightDtype::F32,
        depth: 1,
        panel: 8,
        run: matmul::run::<Exact, AsF32>,
        run_to_bf16: None,
        quantise: quantise::quantise::<F32x4>,
    },
    bf16: Product {
        activation_dtype: ActivationDtype::F32,
        weight_dtype: WeightDtype::Bf16,
        depth: 1,
        panel: 8,
        run: matmul::run::<Narrow, AsF32>,
        run_to_bf16: None,
        quantise: quantise::quantise::<F32x4>,
    },
    int8: Product {
        activation_dtype: ActivationDtype::U8,
        weight_dtype: WeightDtype::I8,
        depth: 4,
        panel: 8,
        run: matmul::run::<Bytes, AsF32>,
        run_to_bf16: None,
        quantise: quantise::quantise::<F32x4>,
    },
    attention: AttentionFns { to_f32: attention::run::<Exact, AsF32, AsF32>, to_bf16: None },
    attention_bf16: None,
    norm: norm::norm::<F32x4>,
    glu: glu::run::<F32x4>,
    rotate: rotary::run::<F32x4>,
    quantise: quantise::quantise::<F32x4>,
    round: None,
};

impl F32x4 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }
}

impl Simd for F32x4 {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self {
        let lane = |lane| if lane < count { unsafe { from.add(lane).read_unaligned() } } else { fill };
        Self(std::array::from_fn(lane))
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for lane in 0..count.min(4) {
            unsafe { to.add(lane).write_unaligned(self.0[lane]) }
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        let halves = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        Self(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        let bytes = unsafe { self.round() }.0.map(|x| x as u8);
        unsafe { to.cast::<[u8; 4]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // f32::mul_add is a slow library call on a target without a fused instruction.
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + summand.0[lane]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and subtracting 1.5·2^23 rounds to the nearest integer (for |x| < 2^22).
        self.map(|x| (x + 12_582_912.0) - 12_582_912.0)
    }

    #[inline(always)]
    unsafe fn exp2_int(self) -> Self {
        self.map(|n| f32::from_bits((((n as i32) + 127) << 23) as u32))
    }

    #[inline(always)]
    unsafe fn butterfly<const DISTANCE: usize>(self) -> Self {
        Self(std::array::from_fn(|lane| self.0[(lane ^ DISTANCE) & 3]))
    }

    #[inline(always)]
    unsafe fn select<const DISTANCE: usize>(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if lane & DISTANCE == 0 { self.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn keep_first(self, count: usize, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if lane < count { self.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        self.0[0].max(self.0[1]).max(self.0[2].max(self.0[3]))
    }
}

/// Multiplies four bytes of activations by four bytes of weights.
struct Bytes;

impl MicroKernel for Bytes {
    type Simd = F32x4;
    type Group = [u8; 4];
    type Weights = [[i8; 4]; 4];
    type Sum = [i32; 4];
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
    const DEPTH: usize = 4;
    const GROUP_BYTES: usize = 4;
    const WEIGHT_BYTES: usize = 4;
    const EXACT: bool = false;

    #[inline(always)]
    unsafe fn zero() -> [i32; 4] {
        [0; 4]
    }

    #[inline(always)]
    unsafe fn group(from: *const u8) -> [u8; 4] {
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> [[i8; 4]; 4] {
        unsafe { from.cast::<[[i8; 4]; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot(group: [u8; 4], weights: [[i8; 4]; 4], sum: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|lane| {
            let products = group.iter().zip(weights[lane]).map(|(a, b)| i32::from(*a) * i32::from(b));
            sum[lane] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn finish(sum: [i32; 4], columns: Columns, row_scale: f32) -> F32x4 {
        unsafe {
            let offsets = columns.offsets.cast::<[i32; 4]>().read_unaligned();
            let sum = F32x4(std::array::from_fn(|lane| (sum[lane] - offsets[lane]) as f32));
            let scale = F32x4::load(columns.scales).mul(F32x4::splat(row_scale));
            sum.mul_add(scale, F32x4::load(columns.bias))
        }
    }
}
