//! The SIMD vector of f32 that the kernels use. Kernels are written once over this trait and over
//! [`MicroKernel`](super::tile::MicroKernel). An instruction set implements both and adds entry points that enable its
//! CPU features.
//!
//! Every method is `unsafe`, because an implementation may use instructions that not every CPU has. All methods have
//! the same contract: the caller runs on a CPU with the implementation's features, and pointers are valid for what is
//! read or written (no alignment is needed).

/// A vector of [`WIDTH`](Simd::WIDTH) f32 lanes.
pub(crate) trait Simd: Copy {
    /// Lanes in a vector, a power of two of at most 16.
    const WIDTH: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `count` lanes from memory, the others `fill`. Memory after the first `count` values is not read.
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self;
    /// Writes the first `count` lanes. Memory after them is not written.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    /// Loads `WIDTH` bf16 values and widens them.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Rounds the lanes, whose values are in 0..=255, and writes each as a byte.
    unsafe fn store_bytes(self, to: *mut u8);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + summand`, with one rounding if the CPU has a fused instruction.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The larger value of each lane; `other`'s lane if either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller value of each lane; `other`'s lane if either is NaN.
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// Rounds each lane to the nearest integer.
    unsafe fn round(self) -> Self;
    /// `2^n` for integers `n` in -126..=127.
    unsafe fn exp2_int(self) -> Self;
    /// Lane `i` gets lane `i ^ DISTANCE`, which is a power of two below `WIDTH`.
    unsafe fn butterfly<const DISTANCE: usize>(self) -> Self;
    /// Lanes whose index lacks the bit `DISTANCE` from `self`, the others from `other`.
    unsafe fn select<const DISTANCE: usize>(self, other: Self) -> Self;
    /// The first `count` lanes, at most `WIDTH`, from `self`, the others from `other`.
    unsafe fn keep_first(self, count: usize, other: Self) -> Self;
    unsafe fn reduce_sum(self) -> f32;
    unsafe fn reduce_max(self) -> f32;
}

/// How results are stored: as f32, or rounded to bf16.
pub(crate) trait Store<L: Simd> {
    /// A stored value.
    type Element: Copy;

    /// Stores the first `left` lanes, or the whole vector if it has fewer.
    ///
    /// # Safety
    /// As [`Simd`]; `to` is valid for `left` values, or for a vector if that is less.
    unsafe fn store_up_to(value: L, to: *mut Self::Element, left: usize);
}

/// Stores f32.
pub(crate) struct AsF32;

impl<L: Simd> Store<L> for AsF32 {
    type Element = f32;

    #[inline(always)]
    unsafe fn store_up_to(value: L, to: *mut f32, left: usize) {
        // SAFETY: the caller's promise.
        unsafe { if left >= L::WIDTH { value.store(to) } else { value.store_part(to, left) } }
    }
}

/// Loads `left` values followed by zeros, or a whole vector if that is less.
///
/// # Safety
/// As [`Simd`]; `from` is valid for `left` floats, or for a vector if that is less.
#[inline(always)]
pub(crate) unsafe fn load_up_to<L: Simd>(from: *const f32, left: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe { if left >= L::WIDTH { L::load(from) } else { L::load_part(from, left, 0.0) } }
}
