//! Embedding tables: rows that are looked up, in f32 or, for the precisions that round anyway, in bf16.

use crate::Precision;

/// `[rows × width]`
pub(super) struct Table {
    numbers: Stored,
    width: usize,
}

enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Table {
    pub(super) fn new(numbers: Vec<f32>, width: usize, precision: Precision) -> Self {
        let numbers = match precision {
            Precision::F32 | Precision::Auto => Stored::F32(numbers),
            Precision::Bf16 | Precision::Int8 => {
                Stored::Bf16(numbers.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect())
            }
        };
        Self { numbers, width }
    }

    /// Writes a row to `to`. Beyond the last row it is the last: tokens of another model get a wrong vector, not
    /// another's memory.
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

    fn row<'a, T>(&self, numbers: &'a [T], row: usize) -> &'a [T] {
        let row = row.min(numbers.len() / self.width - 1);
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
