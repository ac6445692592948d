//! Vectors on the wire: numbers or base64, in any order, into one flat array in the order of the inputs.
//!
//! Every way in which an answer can be wrong without being no JSON is found here: too few vectors, an index
//! twice or beyond, differing lengths, base64 that is no whole number of floats, a number that is none.

use std::{borrow::Cow, fmt};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

/// With or without padding: not all servers write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a vector's list starts before its length is known.
const USUAL_LENGTH: usize = 1024;

/// One vector as it came.
#[derive(Debug)]
pub(crate) enum Row<'a> {
    /// Little-endian floats.
    Base64(Cow<'a, str>),
    /// A list of numbers.
    Numbers(Vec<f32>),
}

/// An entry of OpenAI's `data`.
#[derive(Debug, Deserialize)]
pub(crate) struct Indexed<'a> {
    index: Option<usize>,
    #[serde(borrow)]
    embedding: Row<'a>,
}

/// All vectors of an answer.
pub(crate) enum ResponseVectors<'a> {
    /// In the order of the inputs.
    InOrder(Vec<Row<'a>>),
    /// Each with its place.
    Indexed(Vec<Indexed<'a>>),
}

impl<'a> ResponseVectors<'a> {
    /// One flat array, and the length of each vector; the error says what is wrong.
    pub(crate) fn into_flat(self, inputs: usize) -> Result<(Vec<f32>, usize), String> {
        let rows = self.in_order(inputs)?;
        let mut flat = Flat { data: Vec::new(), length: None, rows: inputs };
        for row in rows {
            flat.push(row)?;
        }
        let length = flat.length.unwrap_or(0);
        if length == 0 {
            return Err("vectors of length zero".into());
        }
        match flat.data.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(format!("a number that is not finite in vector {}", at / length)),
            None => Ok((flat.data, length)),
        }
    }

    fn in_order(self, inputs: usize) -> Result<Vec<Row<'a>>, String> {
        let count = match &self {
            Self::InOrder(rows) => rows.len(),
            Self::Indexed(rows) => rows.len(),
        };
        if count != inputs {
            return Err(format!("{count} vectors for {inputs} inputs"));
        }
        let indexed = match self {
            Self::InOrder(rows) => return Ok(rows),
            // Some servers leave the index out; then the order is all there is.
            Self::Indexed(rows) if rows.iter().all(|row| row.index.is_none()) => rows.into_iter().collect(),
            Self::Indexed(rows) => {
                let mut places: Vec<Option<Indexed<'a>>> = (0..inputs).map(|_| None).collect();
                for row in rows {
                    let index = row.index.ok_or("a vector without an index among others with one")?;
                    let place = places
                        .get_mut(index)
                        .ok_or_else(|| format!("a vector for input {index}, of {inputs}"))?;
                    if place.replace(row).is_some() {
                        return Err(format!("two vectors for input {index}"));
                    }
                }
                places.into_iter().flatten().collect::<Vec<_>>()
            }
        };
        Ok(indexed.into_iter().map(|row| row.embedding).collect())
    }
}

/// The array under construction.
struct Flat {
    data: Vec<f32>,
    length: Option<usize>,
    rows: usize,
}

impl Flat {
    fn push(&mut self, row: Row<'_>) -> Result<(), String> {
        let start = self.data.len();
        match row {
            // The only row's list becomes the array.
            Row::Numbers(numbers) if self.rows == 1 => self.data = numbers,
            Row::Numbers(numbers) => {
                self.reserve(numbers.len());
                self.data.extend_from_slice(&numbers);
            }
            Row::Base64(text) => self.decode(&text)?,
        }
        let length = self.data.len() - start;
        match self.length.replace(length) {
            Some(other) if other != length => Err(format!("vectors of {other} and of {length} numbers")),
            _ => Ok(()),
        }
    }

    /// Room for all rows at the first, so that the array never moves.
    fn reserve(&mut self, length: usize) {
        if self.data.is_empty() {
            self.data.reserve_exact(length.saturating_mul(self.rows));
        }
    }

    /// Straight into the array's own memory.
    fn decode(&mut self, text: &str) -> Result<(), String> {
        let (digits, start) = (text.trim_end_matches('=').len(), self.data.len());
        let bytes = digits * 3 / 4;
        if bytes % 4 != 0 {
            return Err(format!("base64 of {bytes} bytes, which is no whole number of floats"));
        }
        self.reserve(bytes / 4);
        self.data.resize(start + bytes / 4, 0.0);
        let target = bytemuck::cast_slice_mut::<f32, u8>(&mut self.data[start..]);
        match BASE64.decode_slice_unchecked(text, target) {
            Ok(written) if written == bytes => {}
            _ => return Err("what is no base64".into()),
        }
        if cfg!(target_endian = "big") {
            for number in &mut self.data[start..] {
                *number = f32::from_bits(number.to_bits().swap_bytes());
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Row<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector as numbers or base64")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Row<'de>, E> {
                Ok(Row::Base64(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Row<'de>, E> {
                Ok(Row::Base64(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Row<'de>, A::Error> {
                let mut numbers = Vec::with_capacity(USUAL_LENGTH);
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                }
                Ok(Row::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indexed(json: &str, inputs: usize) -> Result<(Vec<f32>, usize), String> {
        ResponseVectors::Indexed(serde_json::from_str(json).map_err(|error| error.to_string())?)
            .into_flat(inputs)
    }

    fn base64(numbers: &[f32]) -> String {
        BASE64.encode(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
    }

    proptest! {
        #[test]
        fn any_order_comes_out_in_order_and_bit_for_bit(
            (length, count) in (1_usize..9, 1_usize..6),
            seed in any::<u64>(), as_base64 in any::<bool>(), padded in any::<bool>(),
        ) {
            let number = |i: usize| f32::from_bits(((seed >> (i % 32)) as u32) & 0x7f7f_ffff);
            let vectors: Vec<Vec<f32>> =
                (0..count).map(|row| (0..length).map(|at| number(row * length + at)).collect()).collect();
            let mut entries: Vec<String> = vectors.iter().enumerate().map(|(index, vector)| {
                let vector = if as_base64 {
                    let text = base64(vector);
                    format!("\"{}\"", if padded { text.as_str() } else { text.trim_end_matches('=') })
                } else {
                    format!("{vector:?}")
                };
                format!("{{\"object\":\"embedding\",\"embedding\":{vector},\"index\":{index}}}")
            }).collect();
            entries.rotate_left(seed as usize % count);
            let (flat, got) = indexed(&format!("[{}]", entries.join(",")), count).unwrap();
            prop_assert_eq!(got, length);
            if as_base64 {
                prop_assert_eq!(
                    flat.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    vectors.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                );
            } else {
                for (a, b) in flat.iter().zip(vectors.concat()) {
                    prop_assert!((a - b).abs() <= b.abs() * f32::EPSILON);
                }
            }
        }
    }

    #[test]
    fn without_indices_the_order_is_the_answers() {
        assert_eq!(
            indexed(r#"[{"embedding":[1,2]},{"embedding":[3,4]}]"#, 2),
            Ok((vec![1.0, 2.0, 3.0, 4.0], 2))
        );
    }

    #[test]
    fn every_lie_is_named() {
        let row = |index: usize, vector: &str| format!(r#"{{"index":{index},"embedding":{vector}}}"#);
        let two = |a: String, b: String| indexed(&format!("[{a},{b}]"), 2).unwrap_err();
        assert_eq!(indexed("[]", 1).unwrap_err(), "0 vectors for 1 inputs");
        assert_eq!(two(row(0, "[1]"), row(0, "[1]")), "two vectors for input 0");
        assert_eq!(two(row(0, "[1]"), row(2, "[1]")), "a vector for input 2, of 2");
        assert_eq!(two(row(0, "[1]"), row(1, "[1,2]")), "vectors of 1 and of 2 numbers");
        assert!(two(row(0, "[1]"), r#"{"embedding":[1]}"#.into()).contains("without an index"));
        assert!(two(row(0, "[]"), row(1, "[]")).contains("length zero"));
        let nan = format!("\"{}\"", base64(&[1.0, f32::NAN]));
        assert!(two(row(0, &nan), row(1, &nan)).contains("not finite in vector 0"));
        assert!(two(row(0, "[1]"), row(1, "[1e39]")).contains("not finite in vector 1"));
        assert!(two(row(0, "\"AACAPw==\""), row(1, "\"AACA\"")).contains("3 bytes"));
        assert_eq!(two(row(0, "\"AACA!w==\""), row(1, "[1]")), "what is no base64");
        assert!(two(row(0, "[NaN]"), row(1, "[1]")).contains("expected"));
        assert!(two(row(0, "null"), row(1, "[1]")).contains("a vector as numbers or base64"));
    }
}
