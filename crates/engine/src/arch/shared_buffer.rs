//! Rows that the threads of a team write, each its own, and read, all of them, with a barrier between.

use std::ops::Range;

use crate::kernels::{ActivationDtype, MatrixRef, NumbersMut, ensure_len, stride};

/// Rows of f32 or bf16.
#[derive(Default)]
pub(super) struct SharedBuffer {
    f32: Vec<f32>,
    bf16: Vec<u16>,
    stride: usize,
    /// Where the rows lie, and how many numbers there are. Taken from the vector when it was last grown, so that
    /// threads never touch the vector itself.
    numbers: Option<(First, usize)>,
}

#[derive(Clone, Copy)]
enum First {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: the pointers are to the vectors' own memory, which moves with them; threads go through them only in `rows`
// and `rows_mut`, whose contracts exclude a race.
unsafe impl Sync for SharedBuffer {}
// SAFETY: as above.
unsafe impl Send for SharedBuffer {}

impl SharedBuffer {
    /// Makes room for `rows` rows of `width`.
    pub(super) fn resize(&mut self, form: ActivationDtype, rows: usize, width: usize) {
        self.stride = stride(width);
        let count = rows * self.stride;
        let first = match form {
            ActivationDtype::Bf16 => {
                ensure_len(&mut self.bf16, count);
                First::Bf16(self.bf16.as_mut_ptr())
            }
            ActivationDtype::F32 | ActivationDtype::U8 => {
                ensure_len(&mut self.f32, count);
                First::F32(self.f32.as_mut_ptr())
            }
        };
        self.numbers = Some((first, count));
    }

    /// Rows to be read.
    ///
    /// # Safety
    /// Until the result is dropped, nobody writes these rows.
    pub(super) unsafe fn rows(&self, rows: Range<usize>) -> MatrixRef<'_> {
        let stride = self.stride;
        let (first, range) = self.part(&rows);
        // SAFETY: the part lies in the vector, and the caller promises that nobody writes it.
        unsafe {
            match first {
                First::F32(first) => {
                    let numbers = std::slice::from_raw_parts(first.add(range.start), range.len());
                    MatrixRef::F32 { numbers, stride }
                }
                First::Bf16(first) => {
                    let numbers = std::slice::from_raw_parts(first.add(range.start), range.len());
                    MatrixRef::Bf16 { numbers, stride }
                }
            }
        }
    }

    /// Rows to be written.
    ///
    /// # Safety
    /// Until the result is dropped, nobody else reads or writes these rows.
    pub(super) unsafe fn rows_mut(&self, rows: Range<usize>) -> NumbersMut<'_> {
        let stride = self.stride;
        let (first, range) = self.part(&rows);
        // SAFETY: the part lies in the vector, and the caller promises that nobody else touches it.
        unsafe {
            match first {
                First::F32(first) => {
                    let numbers = std::slice::from_raw_parts_mut(first.add(range.start), range.len());
                    NumbersMut::F32 { numbers, stride }
                }
                First::Bf16(first) => {
                    let numbers = std::slice::from_raw_parts_mut(first.add(range.start), range.len());
                    NumbersMut::Bf16 { numbers, stride }
                }
            }
        }
    }

    /// Where the rows begin, and which numbers from there on are of these.
    fn part(&self, rows: &Range<usize>) -> (First, Range<usize>) {
        let range = rows.start * self.stride..rows.end * self.stride;
        match self.numbers {
            Some((first, count)) if range.start <= range.end && range.end <= count => (first, range),
            _ => unreachable!("rows that `fit` made room for"),
        }
    }
}
