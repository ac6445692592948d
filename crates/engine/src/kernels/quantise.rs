//! Eight-bit numbers with a scale for each row, and the rotation that makes eight bits enough.
//!
//! A few activations of a row are far larger than the others; eight bits that reach them leave little for the
//! rest. So rows are multiplied by a block-diagonal Hadamard matrix first, which spreads every number over its
//! block, and weights by the same: H·H = n·I, so the product stays what it was. The idea is that of QuaRot
//! (arXiv:2404.00456); blocks of 128 are ENGINE.md's measured choice.

use super::simd::{Simd, part};

/// Rows of f32 as rows of bytes around 128; made by [`super::Kernels::prepare`].
pub(crate) struct Quantise {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows × width]`
    pub(super) x: *const f32,
    /// `rows` rows of `stride` bytes
    pub(super) out: *mut u8,
    pub(super) stride: usize,
    /// `[rows]`: what one unit of a row stands for.
    pub(super) scales: *mut f32,
    /// `width` floats of room.
    pub(super) room: *mut f32,
}

/// Numbers that are rotated together: the largest power of two from 16 to 128 that divides the width; 1, which
/// is no rotation, where none does.
pub(super) fn block(width: usize) -> usize {
    [128, 64, 32, 16].into_iter().find(|block| width.is_multiple_of(*block)).unwrap_or(1)
}

/// Rotates each row, finds its largest number m, and writes every number as `round(127·x/m) + 128`. Rotation
/// multiplies lengths by √block; the scale takes that along, and is not a number where one of the row's is not finite.
///
/// # Safety
/// As [`Simd`]; the buffers are as [`Quantise`] says, `stride` is `width` rounded up to 16 at least.
#[inline(always)]
pub(super) unsafe fn quantise<L: Simd>(call: &Quantise) {
    let Quantise { rows, width, x, out, stride, scales, room } = *call;
    let block = block(width);
    for row in 0..rows {
        // SAFETY: inside the buffers, by the caller's promise; a vector that begins inside the width ends
        // inside the stride.
        unsafe {
            let x = x.add(row * width);
            let (from, Magnitudes { largest, sum }) = if block == 1 {
                (x, magnitudes::<L>(x, width))
            } else {
                (room.cast_const(), rotate::<L>(x, room, width, block))
            };
            let largest = largest.reduce_max();
            let zero_if_finite = sum.sub(sum).reduce_sum();
            *scales.add(row) = largest / 127.0 + zero_if_finite;
            let scale = L::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            for at in (0..width).step_by(L::WIDTH) {
                let value = part::<L>(from.add(at), width - at);
                value.mul_add(scale, L::splat(128.0)).store_bytes(out.add(row * stride + at));
            }
        }
    }
}

/// What a row's numbers come to, by lane.
struct Magnitudes<L> {
    largest: L,
    /// Finite only if all of them are, which a maximum does not tell.
    sum: L,
}

impl<L: Simd> Magnitudes<L> {
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn none() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { largest: L::splat(0.0), sum: L::splat(0.0) } }
    }

    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn take(&mut self, found: L) {
        // SAFETY: the caller's promise.
        unsafe {
            self.largest = self.largest.max(found);
            self.sum = self.sum.add(found);
        }
    }
}

/// # Safety
/// As [`Simd`]; `x` is valid for `width` floats.
#[inline(always)]
unsafe fn magnitudes<L: Simd>(x: *const f32, width: usize) -> Magnitudes<L> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut magnitudes = Magnitudes::none();
        for at in (0..width).step_by(L::WIDTH) {
            magnitudes.take(part::<L>(x.add(at), width - at).abs());
        }
        magnitudes
    }
}

/// Multiplies each block of a row by the Hadamard matrix of ±1. A block with a number that is not finite has none that
/// is afterwards.
///
/// # Safety
/// As [`Simd`]; `x` and `to` are valid for `width` floats, a multiple of `block`, which is one of [`block`]'s.
#[inline(always)]
unsafe fn rotate<L: Simd>(x: *const f32, to: *mut f32, width: usize, block: usize) -> Magnitudes<L> {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        let mut magnitudes = Magnitudes::none();
        for at in (0..width).step_by(block) {
            let (x, to) = (x.add(at), to.add(at));
            let found = match block / L::WIDTH {
                1 => rotate_block::<L, 1>(x, to),
                2 => rotate_block::<L, 2>(x, to),
                4 => rotate_block::<L, 4>(x, to),
                8 => rotate_block::<L, 8>(x, to),
                16 => rotate_block::<L, 16>(x, to),
                _ => rotate_block::<L, 32>(x, to),
            };
            magnitudes.take(found);
        }
        magnitudes
    }
}

/// One block of `VECTORS` vectors: butterflies between vectors first, then between lanes. Returns the largest magnitudes,
/// by lane.
///
/// # Safety
/// As [`Simd`]; `x` and `to` are valid for the block.
#[inline(always)]
unsafe fn rotate_block<L: Simd, const VECTORS: usize>(x: *const f32, to: *mut f32) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let mut values = [L::splat(0.0); VECTORS];
        for (vector, value) in values.iter_mut().enumerate() {
            *value = L::load(x.add(vector * L::WIDTH));
        }
        for stage in 0..VECTORS.trailing_zeros() {
            let distance = 1 << stage;
            for i in 0..VECTORS {
                if i & distance == 0 {
                    let (a, b) = (values[i], values[i + distance]);
                    (values[i], values[i + distance]) = (a.add(b), a.sub(b));
                }
            }
        }
        let mut largest = L::splat(0.0);
        for (vector, value) in values.into_iter().enumerate() {
            let mut value = cross::<L, 2>(cross::<L, 1>(value));
            if L::WIDTH > 4 {
                value = cross::<L, 4>(value);
            }
            if L::WIDTH > 8 {
                value = cross::<L, 8>(value);
            }
            value.store(to.add(vector * L::WIDTH));
            largest = largest.max(value.abs());
        }
        largest
    }
}

/// The butterfly between lanes: lane i becomes a + b of the pair (a, b) that it belongs to or, where its bit of
/// `DISTANCE` is set, a - b.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn cross<L: Simd, const DISTANCE: usize>(value: L) -> L {
    // SAFETY: the caller's promise; there are sixteen signs.
    unsafe {
        value.mul_add(
            L::load(SIGNS[DISTANCE.trailing_zeros() as usize].as_ptr()),
            value.butterfly::<DISTANCE>(),
        )
    }
}

/// For distances 1, 2, 4, 8: -1 where the lane's bit of the distance is set.
const SIGNS: &[[f32; 16]; 4] = &{
    let mut signs = [[1.0; 16]; 4];
    let mut lane = 0;
    while lane < 16 {
        let mut stage = 0;
        while stage < 4 {
            if lane >> stage & 1 == 1 {
                signs[stage][lane] = -1.0;
            }
            stage += 1;
        }
        lane += 1;
    }
    signs
};
