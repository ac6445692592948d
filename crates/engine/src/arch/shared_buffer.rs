//! A matrix that several threads share: each writes its own rows, then, after a barrier, all read any row.

use std::ops::Range;

use crate::kernels::{ActivationDtype, MatrixMut, MatrixRef, ensure_len, stride};

/// A matrix of f32 or bf16.
#[derive(Default)]
pub(super) struct SharedBuffer {
    f32: Vec<f32>,
    bf16: Vec<u16>,
    stride: usize,
    /// Pointer to the first value, and the number of values. Set when the vector was last resized, so that threads
    /// never access the vector itself.
    values: Option<(First, usize)>,
}

#[derive(Clone, Copy)]
enum First {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: the pointers point into the vectors' heap memory, which the buffer owns. Threads access it only through
// `rows` and `rows_mut`, whose contracts exclude a data race.
unsafe impl Sync for SharedBuffer {}
// SAFETY: as above.
unsafe impl Send for SharedBuffer {}

impl SharedBuffer {
    /// Resizes the matrix to `rows` rows of `width` values of `dtype`.
    pub(super) fn resize(&mut self, dtype: ActivationDtype, rows: usize, width: usize) {
        self.stride = stride(width);
        let count = rows * self.stride;
        let first = match dtype {
            ActivationDtype::Bf16 => {
                ensure_len(&mut self.bf16, count);
                First::Bf16(self.bf16.as_mut_ptr())
            }
            ActivationDtype::F32 | ActivationDtype::U8 => {
                ensure_len(&mut self.f32, count);
                First::F32(self.f32.as_mut_ptr())
            }
        };
        self.values = Some((first, count));
    }

    /// Borrows rows for reading.
    ///
    /// # Safety
    /// Until the result is dropped, no thread writes these rows.
    pub(super) unsafe fn rows(&self, rows: Range<usize>) -> MatrixRef<'_> {
        let stride = self.stride;
        let (first, range) = self.locate(&rows);
        // SAFETY: the range lies inside the vector, and the caller promises that no thread writes it.
        unsafe {
            match first {
                First::F32(first) => {
                    let values = std::slice::from_raw_parts(first.add(range.start), range.len());
                    MatrixRef::F32 { values, stride }
                }
                First::Bf16(first) => {
                    let values = std::slice::from_raw_parts(first.add(range.start), range.len());
                    MatrixRef::Bf16 { values, stride }
                }
            }
        }
    }

    /// Borrows rows for writing.
    ///
    /// # Safety
    /// Until the result is dropped, no other reference reads or writes these rows.
    pub(super) unsafe fn rows_mut(&self, rows: Range<usize>) -> MatrixMut<'_> {
        let stride = self.stride;
        let (first, range) = self.locate(&rows);
        // SAFETY: the range lies inside the vector, and the caller promises that nothing else accesses it.
        unsafe {
            match first {
                First::F32(first) => {
                    let values = std::slice::from_raw_parts_mut(first.add(range.start), range.len());
                    MatrixMut::F32 { values, stride }
                }
                First::Bf16(first) => {
                    let values = std::slice::from_raw_parts_mut(first.add(range.start), range.len());
                    MatrixMut::Bf16 { values, stride }
                }
            }
        }
    }

    /// The pointer to the first value, and the range of values that `rows` cover.
    fn locate(&self, rows: &Range<usize>) -> (First, Range<usize>) {
        let range = rows.start * self.stride..rows.end * self.stride;
        match self.values {
            Some((first, count)) if range.start <= range.end && range.end <= count => (first, range),
            _ => unreachable!("rows inside the size given to `resize`"),
        }
    }
}
