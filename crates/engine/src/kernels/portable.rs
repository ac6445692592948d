//! The kernels for any CPU: vectors of four, written so that the compiler turns them into whatever 128-bit
//! instructions there are. The reference that the SIMD kernels are tested against in shape and order.

use super::{Attention, Kernels, LayerNorm, MatMul, attention, lanes::Lanes, matmul, rows};

#[derive(Clone, Copy)]
pub(crate) struct F32x4([f32; 4]);

pub(super) const KERNELS: Kernels = Kernels {
    name: "portable",
    panel: F32x4::PANEL_VECTORS * F32x4::WIDTH,
    lanes: F32x4::WIDTH,
    // SAFETY of the three: F32x4 uses no instruction that a CPU could lack; pointers as the argument types say.
    matmul: |call: &MatMul| unsafe { matmul::run::<F32x4>(call) },
    attention: |call: &Attention| unsafe { attention::run::<F32x4>(call) },
    layer_norm: |call: &LayerNorm| unsafe { rows::layer_norm::<F32x4>(call) },
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

impl Lanes for F32x4 {
    const WIDTH: usize = 4;
    const ROWS: usize = 4;
    const PANEL_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises four readable floats.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises four writable floats.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self {
        // SAFETY: only the lanes below `count`, which the caller promises, are read.
        Self(std::array::from_fn(|lane| {
            if lane < count { unsafe { from.add(lane).read_unaligned() } } else { fill }
        }))
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for lane in 0..count.min(4) {
            // SAFETY: only the lanes below `count`, which the caller promises, are written.
            unsafe { to.add(lane).write_unaligned(self.0[lane]) }
        }
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
        // Not f32::mul_add: without a fused instruction that is a slow library call.
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + summand.0[lane]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, f32::max)
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and taking away 1.5·2^23 leaves the nearest whole number (for |x| < 2^22).
        self.map(|x| (x + 12_582_912.0) - 12_582_912.0)
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        self.map(|n| f32::from_bits((((n as i32) + 127) << 23) as u32))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0[0].max(self.0[1]).max(self.0[2].max(self.0[3]))
    }
}
