//! One SIMD vector of f32, as the kernels see it. The kernels are written once over this trait and over
//! [`Tile`](super::tile::MicroKernel); an instruction set is one implementation of each and a few entry points that
//! switch its features on.
//!
//! Every method is `unsafe` for one reason: an implementation may use instructions that the CPU must have.
//! The contract of all of them: the caller runs on a CPU with the implementation's features, and pointers are
//! valid for what is read or written (no alignment is needed).

/// A vector of [`WIDTH`](Simd::WIDTH) f32 lanes.
pub(crate) trait Simd: Copy {
    /// Simd in a vector, a power of two of at most 16.
    const WIDTH: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `count` lanes from memory, the others `fill`; memory behind them is not touched.
    unsafe fn load_part(from: *const f32, count: usize, fill: f32) -> Self;
    /// Writes the first `count` lanes; memory behind them is not touched.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    /// `WIDTH` bf16 numbers, widened.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Rounds the lanes, which are in 0..=255, and writes each as a byte.
    unsafe fn store_bytes(self, to: *mut u8);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + summand`; one rounding where the CPU has a fused instruction.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The larger; `other`'s lane where either is not a number.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller; `other`'s lane where either is not a number.
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// The nearest whole numbers.
    unsafe fn round(self) -> Self;
    /// `2^n` for whole `n` in -126..=127.
    unsafe fn exp2_int(self) -> Self;
    /// Lane `i` gets lane `i ^ DISTANCE`, which is a power of two below `WIDTH`.
    unsafe fn butterfly<const DISTANCE: usize>(self) -> Self;
    /// The lanes whose index has not the bit `DISTANCE` from `self`, the others from `other`.
    unsafe fn select<const DISTANCE: usize>(self, other: Self) -> Self;
    /// The first `count` lanes, at most `WIDTH`, from `self`, the others from `other`.
    unsafe fn first(self, count: usize, other: Self) -> Self;
    unsafe fn reduce_sum(self) -> f32;
    unsafe fn reduce_max(self) -> f32;
}

/// How results are written: as the f32 they are, or rounded for a product in bf16.
pub(crate) trait Store<L: Simd> {
    /// One number as stored.
    type Number: Copy;

    /// Writes a whole vector, or only what is left of a row.
    ///
    /// # Safety
    /// As [`Simd`]; `to` is valid for `left` numbers, or for a vector if that is less.
    unsafe fn put(value: L, to: *mut Self::Number, left: usize);
}

/// Results stay f32.
pub(crate) struct AsF32;

impl<L: Simd> Store<L> for AsF32 {
    type Number = f32;

    #[inline(always)]
    unsafe fn put(value: L, to: *mut f32, left: usize) {
        // SAFETY: the caller's promise.
        unsafe { if left >= L::WIDTH { value.store(to) } else { value.store_part(to, left) } }
    }
}

/// A whole vector, or what is left of a row with zeros behind.
///
/// # Safety
/// As [`Simd`]; `from` is valid for `left` floats, or for a vector if that is less.
#[inline(always)]
pub(crate) unsafe fn part<L: Simd>(from: *const f32, left: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe { if left >= L::WIDTH { L::load(from) } else { L::load_part(from, left, 0.0) } }
}
