//! Rows that the threads of a team write, each its own, and read, all of them, with a barrier between.

use std::{cell::UnsafeCell, ops::Range};

use crate::kernels::{Form, Numbers, NumbersMut, grow, stride};

/// Rows of f32 or bf16.
pub(super) struct SharedRows {
    f32: UnsafeCell<Vec<f32>>,
    bf16: UnsafeCell<Vec<u16>>,
    form: Form,
    stride: usize,
}

// SAFETY: threads touch the numbers only through `rows` and `rows_mut`, whose contracts exclude a race.
unsafe impl Sync for SharedRows {}

impl SharedRows {
    /// Makes room for `rows` rows of `width`.
    pub(super) fn fit(&mut self, form: Form, rows: usize, width: usize) {
        (self.form, self.stride) = (form, stride(width));
        match form {
            Form::Bf16 => grow(self.bf16.get_mut(), rows * self.stride),
            _ => grow(self.f32.get_mut(), rows * self.stride),
        }
    }

    /// Rows to be read.
    ///
    /// # Safety
    /// Until the result is dropped, nobody writes these rows.
    pub(super) unsafe fn rows(&self, rows: Range<usize>) -> Numbers<'_> {
        let stride = self.stride;
        let numbers = rows.start * stride..rows.end * stride;
        // SAFETY: the caller's promise. The vectors are only ever shared from here on: they grow in `fit` alone.
        unsafe {
            match self.form {
                Form::Bf16 => Numbers::Bf16 { numbers: part(self.bf16.get(), numbers), stride },
                _ => Numbers::F32 { numbers: part(self.f32.get(), numbers), stride },
            }
        }
    }

    /// Rows to be written.
    ///
    /// # Safety
    /// Until the result is dropped, nobody else reads or writes these rows.
    pub(super) unsafe fn rows_mut(&self, rows: Range<usize>) -> NumbersMut<'_> {
        let stride = self.stride;
        let numbers = rows.start * stride..rows.end * stride;
        // SAFETY: as above.
        unsafe {
            match self.form {
                Form::Bf16 => NumbersMut::Bf16 { numbers: part_mut(self.bf16.get(), numbers), stride },
                _ => NumbersMut::F32 { numbers: part_mut(self.f32.get(), numbers), stride },
            }
        }
    }
}

/// # Safety
/// Nobody writes the part, or changes the vector itself, while the result lives.
unsafe fn part<'a, T>(all: *const Vec<T>, range: Range<usize>) -> &'a [T] {
    // SAFETY: the caller's promise; only the vector's own three words are borrowed whole, and those nobody writes.
    unsafe {
        let (first, len) = ((*all).as_ptr(), (*all).len());
        assert!(range.start <= range.end && range.end <= len, "rows that are there");
        std::slice::from_raw_parts(first.add(range.start), range.len())
    }
}

/// # Safety
/// Nobody else touches the part, or changes the vector itself, while the result lives.
unsafe fn part_mut<'a, T>(all: *mut Vec<T>, range: Range<usize>) -> &'a mut [T] {
    // SAFETY: as above; `as_ptr` of the vector stands for memory that it owns and may be written through.
    unsafe {
        let (first, len) = ((*all).as_ptr().cast_mut(), (*all).len());
        assert!(range.start <= range.end && range.end <= len, "rows that are there");
        std::slice::from_raw_parts_mut(first.add(range.start), range.len())
    }
}

impl Default for SharedRows {
    fn default() -> Self {
        Self { f32: UnsafeCell::default(), bf16: UnsafeCell::default(), form: Form::F32, stride: 1 }
    }
}
