//! Quantisation: one byte per number for rows, two bytes for the query.

use embeddery_core::squared_length;

/// Bytes of a cache line. Rows are padded with zeros to whole lines.
pub(super) const LINE_BYTES: usize = 64;

/// A cache line of codes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct CacheLine(pub(super) [i8; LINE_BYTES]);

/// A quantised query.
#[derive(Debug)]
pub(super) struct QuantisedQuery {
    /// Coarse codes.
    pub(super) coarse: Vec<CacheLine>,
    /// Codes of the remainders, in units of a coarse step divided by [`FINE_STEPS`].
    pub(super) fine: Vec<CacheLine>,
    /// Sums of the coarse and of the fine codes. Kernels that read rows as unsigned numbers correct their result by them.
    pub(super) sums: [i32; 2],
    /// Size of a coarse step.
    pub(super) scale: f32,
}

/// Fine steps per coarse step. A remainder is at most half a coarse step, and a code is at most 127.
pub(super) const FINE_STEPS: f32 = 254.0;

impl QuantisedQuery {
    pub(super) fn new(query: &[f32], width: usize) -> Self {
        let unit = unit_factor(query);
        let largest = query.iter().fold(0f32, |max, x| max.max(x.abs())) * unit;
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let mut lines = [vec![CacheLine([0; LINE_BYTES]); width], vec![CacheLine([0; LINE_BYTES]); width]];
        let mut sums = [0; 2];
        for (index, x) in query.iter().enumerate() {
            let steps = x * unit / scale;
            let coarse = steps.round();
            let fine = ((steps - coarse) * FINE_STEPS).round();
            for (part, code) in [coarse, fine].into_iter().enumerate() {
                let code = code.clamp(-127.0, 127.0) as i8;
                lines[part][index / LINE_BYTES].0[index % LINE_BYTES] = code;
                sums[part] += i32::from(code);
            }
        }
        let [coarse, fine] = lines;
        Self { coarse, fine, sums, scale }
    }

    /// Returns the score of a row from its dot products with the coarse and the fine codes.
    pub(super) fn score(&self, coarse: i32, fine: i32, row_scale: f32) -> f32 {
        (coarse as f32 + fine as f32 / FINE_STEPS) * self.scale * row_scale
    }
}

/// Appends the codes of a vector and returns the scale of the row.
pub(super) fn push_row(vector: &[f32], width: usize, codes: &mut Vec<CacheLine>) -> f32 {
    let largest = vector.iter().fold(0f32, |max, x| max.max(x.abs()));
    let steps = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let start = codes.len();
    codes.resize(start + width, CacheLine([0; LINE_BYTES]));
    for (line, numbers) in codes[start..].iter_mut().zip(vector.chunks(LINE_BYTES)) {
        for (code, x) in line.0.iter_mut().zip(numbers) {
            *code = (x * steps).round() as i8;
        }
    }
    largest / 127.0 * unit_factor(vector)
}

/// Returns the factor that brings a vector to unit length; zero for a vector of zeros.
pub(super) fn unit_factor(vector: &[f32]) -> f32 {
    let square = squared_length(vector);
    if square > 0.0 { (1.0 / square.sqrt()) as f32 } else { 0.0 }
}
