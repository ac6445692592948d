//! Vectors as smaller numbers. One formula for every model, so that vectors of equal spaces stay comparable:
//!
//! - `int8`: each component times 127, rounded, within −127 … 127
//! - `uint8`: the same plus 128, so 1 … 255 with 128 for zero
//! - `binary`, `ubinary`: one bit per component, set where it is above zero, the first component in the highest
//!   bit of the first byte; `ubinary` is those bytes, `binary` the same minus 128. Zeros fill the last byte.
//!
//! The formulas of `int8` and `uint8` are for vectors of unit length, whose components lie within −1 … 1.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the numbers of a vector are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    /// 32-bit floating point.
    Float,
    /// −127 … 127.
    Int8,
    /// 1 … 255, 128 being zero.
    Uint8,
    /// Eight signs in a byte, minus 128.
    Binary,
    /// Eight signs in a byte.
    Ubinary,
}

/// A vector's numbers as JSON writes them.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Numbers<'a> {
    Float(&'a [f32]),
    Signed(Vec<i8>),
    Unsigned(Vec<u8>),
}

/// A vector in its type.
pub(crate) fn numbers(row: &[f32], dtype: Dtype) -> Numbers<'_> {
    match dtype {
        Dtype::Float => Numbers::Float(row),
        Dtype::Int8 => Numbers::Signed(row.iter().map(|x| scaled(*x)).collect()),
        Dtype::Uint8 => Numbers::Unsigned(row.iter().map(|x| flipped(scaled(*x) as u8)).collect()),
        Dtype::Binary => Numbers::Signed(signs(row).map(|byte| flipped(byte) as i8).collect()),
        Dtype::Ubinary => Numbers::Unsigned(signs(row).collect()),
    }
}

/// A vector's bytes: little-endian floats, or one byte a number.
pub(crate) fn bytes(row: &[f32], dtype: Dtype) -> Vec<u8> {
    match numbers(row, dtype) {
        Numbers::Float(row) => row.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Numbers::Signed(numbers) => numbers.into_iter().map(|number| number as u8).collect(),
        Numbers::Unsigned(bytes) => bytes,
    }
}

fn scaled(x: f32) -> i8 {
    (x * 127.0).round().clamp(-127.0, 127.0) as i8
}

/// Plus or minus 128, which in a byte is the same.
fn flipped(byte: u8) -> u8 {
    byte ^ 0x80
}

fn signs(row: &[f32]) -> impl Iterator<Item = u8> {
    row.chunks(8).map(|eight| {
        let bit = |(at, x): (usize, &f32)| if *x > 0.0 { 0x80 >> at } else { 0 };
        eight.iter().enumerate().map(bit).sum()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(row: &[f32], dtype: Dtype) -> String {
        serde_json::to_string(&numbers(row, dtype)).unwrap()
    }

    #[test]
    fn the_formulas_are_the_documented_ones() {
        let row = [1.0, -1.0, 0.0, 0.5, -0.004, 0.004, 0.2, -0.2, 0.1];
        assert_eq!(json(&row, Dtype::Int8), "[127,-127,0,64,-1,1,25,-25,13]");
        assert_eq!(json(&row, Dtype::Uint8), "[255,1,128,192,127,129,153,103,141]");
        assert_eq!(json(&row, Dtype::Ubinary), "[150,128]"); // 1001 0110, 1
        assert_eq!(json(&row, Dtype::Binary), "[22,0]");
        assert_eq!(bytes(&row, Dtype::Binary), [22, 0]);
        assert_eq!(bytes(&[-0.5], Dtype::Int8), [(-64_i8) as u8]);
    }

    proptest! {
        #[test]
        fn the_types_agree_with_each_other(row in proptest::collection::vec(-1f32..1.0, 1..40)) {
            let (signed, unsigned) = (bytes(&row, Dtype::Int8), bytes(&row, Dtype::Uint8));
            for ((signed, unsigned), x) in signed.iter().zip(unsigned).zip(&row) {
                prop_assert_eq!(i32::from(*signed as i8) + 128, i32::from(unsigned));
                prop_assert!((f32::from(*signed as i8) / 127.0 - x).abs() <= 0.5 / 127.0 + 1e-6);
            }
            let bits = bytes(&row, Dtype::Ubinary);
            prop_assert_eq!(bits.len(), row.len().div_ceil(8));
            for (at, x) in row.iter().enumerate() {
                prop_assert_eq!(bits[at / 8] & (0x80 >> (at % 8)) != 0, *x > 0.0);
            }
        }
    }
}
