//! Embedding tables: rows that are looked up, in f32 or, for the precisions that round anyway, in bf16.

use crate::Precision;

/// `[rows × width]`
pub(super) struct EmbeddingTable {
    numbers: Stored,
    width: usize,
}

enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl EmbeddingTable {
    /// A table with room for this many rows.
    pub(super) fn new(rows: usize, width: usize, precision: Precision) -> Self {
        let numbers = match precision {
            Precision::F32 | Precision::Auto => Stored::F32(Vec::with_capacity(rows * width)),
            Precision::Bf16 | Precision::Int8 => Stored::Bf16(Vec::with_capacity(rows * width)),
        };
        Self { numbers, width }
    }

    /// One row more.
    pub(super) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.width);
        match &mut self.numbers {
            Stored::F32(numbers) => numbers.extend_from_slice(row),
            Stored::Bf16(numbers) => {
                numbers.extend(row.iter().map(|x| half::bf16::from_f32(*x).to_bits()));
            }
        }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        let numbers = match &self.numbers {
            Stored::F32(numbers) => numbers.len(),
            Stored::Bf16(numbers) => numbers.len(),
        };
        numbers / self.width
    }

    /// Writes a row to `to`.
    pub(super) fn copy(&self, row: usize, to: &mut [f32]) {
        match &self.numbers {
            Stored::F32(numbers) => to.copy_from_slice(self.row(numbers, row)),
            Stored::Bf16(numbers) => {
                to.iter_mut().zip(self.row(numbers, row)).for_each(|(to, bits)| *to = widen(*bits));
            }
        }
    }

    /// Adds a row to `to`.
    pub(super) fn add(&self, row: usize, to: &mut [f32]) {
        match &self.numbers {
            Stored::F32(numbers) => to.iter_mut().zip(self.row(numbers, row)).for_each(|(to, x)| *to += x),
            Stored::Bf16(numbers) => {
                to.iter_mut().zip(self.row(numbers, row)).for_each(|(to, bits)| *to += widen(*bits));
            }
        }
    }

    /// Adds a row, multiplied, to `to`.
    pub(super) fn add_scaled(&self, row: usize, factor: f32, to: &mut [f32]) {
        match &self.numbers {
            Stored::F32(numbers) => {
                to.iter_mut().zip(self.row(numbers, row)).for_each(|(to, x)| *to += factor * x);
            }
            Stored::Bf16(numbers) => {
                to.iter_mut().zip(self.row(numbers, row)).for_each(|(to, bits)| *to += factor * widen(*bits));
            }
        }
    }

    fn row<'a, T>(&self, numbers: &'a [T], row: usize) -> &'a [T] {
        &numbers[row * self.width..][..self.width]
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match &self.numbers {
            Stored::F32(numbers) => size_of_val(&**numbers),
            Stored::Bf16(numbers) => size_of_val(&**numbers),
        }
    }
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
