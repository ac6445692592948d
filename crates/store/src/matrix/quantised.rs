//! One byte a number for rows, two for the query.

use embeddery_core::squared_length;

/// Bytes of a cache line; rows are filled up to whole lines with zeros.
pub(super) const LINE: usize = 64;

/// A cache line of codes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct CacheLine(pub(super) [i8; LINE]);

/// A query, ready to meet rows.
#[derive(Debug)]
pub(super) struct QuantisedQuery {
    /// The coarse part.
    pub(super) coarse: Vec<CacheLine>,
    /// What the coarse part leaves over, in units of the coarse step / [`FINE_STEPS`].
    pub(super) fine: Vec<CacheLine>,
    /// The sum of each part's codes: kernels that read rows as unsigned numbers take it back out.
    pub(super) sums: [i32; 2],
    /// One coarse step.
    pub(super) scale: f32,
}

/// Fine steps in a coarse one: what is left over is half a step at most, and a byte ends at 127.
pub(super) const FINE_STEPS: f32 = 254.0;

impl QuantisedQuery {
    pub(super) fn new(query: &[f32], width: usize) -> Self {
        let unit = unit_factor(query);
        let largest = query.iter().fold(0f32, |most, x| most.max(x.abs())) * unit;
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let mut lines = [vec![CacheLine([0; LINE]); width], vec![CacheLine([0; LINE]); width]];
        let mut sums = [0; 2];
        for (index, x) in query.iter().enumerate() {
            let steps = x * unit / scale;
            let coarse = steps.round();
            let fine = ((steps - coarse) * FINE_STEPS).round();
            for (part, code) in [coarse, fine].into_iter().enumerate() {
                let code = code.clamp(-127.0, 127.0) as i8;
                lines[part][index / LINE].0[index % LINE] = code;
                sums[part] += i32::from(code);
            }
        }
        let [coarse, fine] = lines;
        Self { coarse, fine, sums, scale }
    }

    /// The score of a row from its products with both parts.
    pub(super) fn score(&self, coarse: i32, fine: i32, row_scale: f32) -> f32 {
        (coarse as f32 + fine as f32 / FINE_STEPS) * self.scale * row_scale
    }
}

/// Appends a row and returns its scale.
pub(super) fn push_row(vector: &[f32], width: usize, codes: &mut Vec<CacheLine>) -> f32 {
    let largest = vector.iter().fold(0f32, |most, x| most.max(x.abs()));
    let steps = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let begin = codes.len();
    codes.resize(begin + width, CacheLine([0; LINE]));
    for (line, numbers) in codes[begin..].iter_mut().zip(vector.chunks(LINE)) {
        for (code, x) in line.0.iter_mut().zip(numbers) {
            *code = (x * steps).round() as i8;
        }
    }
    largest / 127.0 * unit_factor(vector)
}

/// What brings a vector to unit length; zero for a vector that has none.
pub(super) fn unit_factor(vector: &[f32]) -> f32 {
    let square = squared_length(vector);
    if square > 0.0 { (1.0 / square.sqrt()) as f32 } else { 0.0 }
}
