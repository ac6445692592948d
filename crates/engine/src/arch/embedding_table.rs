//! Embedding tables, in f32 or, for precisions that round activations anyway, in bf16.

use crate::Precision;

/// `[rows × width]`
pub(super) struct EmbeddingTable {
    values: Values,
    width: usize,
}

enum Values {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl EmbeddingTable {
    /// An empty table with capacity for `rows` rows.
    pub(super) fn new(rows: usize, width: usize, precision: Precision) -> Self {
        let values = match precision {
            Precision::F32 | Precision::Auto => Values::F32(Vec::with_capacity(rows * width)),
            Precision::Bf16 | Precision::Int8 => Values::Bf16(Vec::with_capacity(rows * width)),
        };
        Self { values, width }
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.width);
        match &mut self.values {
            Values::F32(values) => values.extend_from_slice(row),
            Values::Bf16(values) => {
                values.extend(row.iter().map(|x| half::bf16::from_f32(*x).to_bits()));
            }
        }
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        let values = match &self.values {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        };
        values / self.width
    }

    /// Copies a row to `to`.
    pub(super) fn copy(&self, row: usize, to: &mut [f32]) {
        match &self.values {
            Values::F32(values) => to.copy_from_slice(self.row(values, row)),
            Values::Bf16(values) => {
                to.iter_mut().zip(self.row(values, row)).for_each(|(to, bits)| *to = widen(*bits));
            }
        }
    }

    /// Adds a row to `to`.
    pub(super) fn add(&self, row: usize, to: &mut [f32]) {
        match &self.values {
            Values::F32(values) => to.iter_mut().zip(self.row(values, row)).for_each(|(to, x)| *to += x),
            Values::Bf16(values) => {
                to.iter_mut().zip(self.row(values, row)).for_each(|(to, bits)| *to += widen(*bits));
            }
        }
    }

    /// Adds a row times `factor` to `to`.
    pub(super) fn add_scaled(&self, row: usize, factor: f32, to: &mut [f32]) {
        match &self.values {
            Values::F32(values) => {
                to.iter_mut().zip(self.row(values, row)).for_each(|(to, x)| *to += factor * x);
            }
            Values::Bf16(values) => {
                to.iter_mut().zip(self.row(values, row)).for_each(|(to, bits)| *to += factor * widen(*bits));
            }
        }
    }

    fn row<'a, T>(&self, values: &'a [T], row: usize) -> &'a [T] {
        &values[row * self.width..][..self.width]
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(&**values),
            Values::Bf16(values) => size_of_val(&**values),
        }
    }
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
