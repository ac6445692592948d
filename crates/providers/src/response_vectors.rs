//! The vectors of a response: numbers or base64, in any order, decoded into one flat array in the order of the inputs.
//!
//! All errors of well-formed JSON are detected here: too few vectors, an index that is repeated or out of range, vectors
//! of different dimensions, and base64 that is not a whole number of floats. A number that is not finite is kept: the
//! gateway names the inputs that have one. Some servers write `null` in its place, because JSON has none.

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

/// Base64 with or without padding: not all servers write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Initial capacity of a vector whose dimensions are not known.
const INITIAL_CAPACITY: usize = 1024;

/// One vector as the response has it.
#[derive(Debug)]
pub(crate) enum EncodedVector<'a> {
    /// Little-endian floats.
    Base64(Cow<'a, str>),
    /// An array of numbers.
    Numbers(Vec<f32>),
}

/// An entry of OpenAI's `data`.
#[derive(Debug, Deserialize)]
pub(crate) struct IndexedVector<'a> {
    index: Option<usize>,
    #[serde(borrow)]
    embedding: EncodedVector<'a>,
}

/// All vectors of a response.
pub(crate) enum ResponseVectors<'a> {
    /// In the order of the inputs.
    InOrder(Vec<EncodedVector<'a>>),
    /// Each with the index of its input.
    Indexed(Vec<IndexedVector<'a>>),
}

impl<'a> ResponseVectors<'a> {
    /// Decodes the vectors into `[inputs × dimensions]`, and returns the dimensions.
    ///
    /// # Errors
    /// What is wrong with the vectors.
    pub(crate) fn into_flat(self, inputs: usize) -> Result<(Vec<f32>, usize), String> {
        let vectors = self.in_input_order(inputs)?;
        let mut flat = FlatVectors { data: Vec::new(), dimensions: None, count: inputs };
        for vector in vectors {
            flat.push(vector)?;
        }
        let dimensions = flat.dimensions.unwrap_or(0);
        if dimensions == 0 {
            return Err("vectors without numbers".into());
        }
        Ok((flat.data, dimensions))
    }

    fn in_input_order(self, inputs: usize) -> Result<Vec<EncodedVector<'a>>, String> {
        let count = match &self {
            Self::InOrder(vectors) => vectors.len(),
            Self::Indexed(vectors) => vectors.len(),
        };
        if count != inputs {
            return Err(format!("{count} vectors for {inputs} inputs"));
        }
        let indexed = match self {
            Self::InOrder(vectors) => return Ok(vectors),
            // Some servers leave the index out. Then the order is that of the inputs.
            Self::Indexed(vectors) if vectors.iter().all(|vector| vector.index.is_none()) => vectors,
            Self::Indexed(vectors) => {
                let mut by_input: Vec<Option<IndexedVector<'a>>> = (0..inputs).map(|_| None).collect();
                for vector in vectors {
                    let index = vector.index.ok_or("a vector without an index among others with one")?;
                    let entry = by_input
                        .get_mut(index)
                        .ok_or_else(|| format!("a vector for input {index}, of {inputs}"))?;
                    if entry.replace(vector).is_some() {
                        return Err(format!("two vectors for input {index}"));
                    }
                }
                by_input.into_iter().flatten().collect::<Vec<_>>()
            }
        };
        Ok(indexed.into_iter().map(|vector| vector.embedding).collect())
    }
}

/// The flat array while it is filled.
struct FlatVectors {
    data: Vec<f32>,
    dimensions: Option<usize>,
    /// The number of vectors when it is complete.
    count: usize,
}

impl FlatVectors {
    fn push(&mut self, vector: EncodedVector<'_>) -> Result<(), String> {
        let start = self.data.len();
        match vector {
            // A single vector becomes the array without a copy.
            EncodedVector::Numbers(numbers) if self.count == 1 => self.data = numbers,
            EncodedVector::Numbers(numbers) => {
                self.reserve(numbers.len());
                self.data.extend_from_slice(&numbers);
            }
            EncodedVector::Base64(text) => self.decode(&text)?,
        }
        let dimensions = self.data.len() - start;
        match self.dimensions.replace(dimensions) {
            Some(other) if other != dimensions => {
                Err(format!("vectors of {other} and of {dimensions} dimensions"))
            }
            _ => Ok(()),
        }
    }

    /// Reserves memory for all vectors at the first one, so that the array is never reallocated.
    fn reserve(&mut self, dimensions: usize) {
        if self.data.is_empty() {
            self.data.reserve_exact(dimensions.saturating_mul(self.count));
        }
    }

    /// Decodes base64 directly into the array.
    fn decode(&mut self, text: &str) -> Result<(), String> {
        let (digits, start) = (text.trim_end_matches('=').len(), self.data.len());
        let bytes = digits * 3 / 4;
        if bytes % 4 != 0 {
            return Err(format!("base64 of {bytes} bytes, which is not a whole number of floats"));
        }
        self.reserve(bytes / 4);
        self.data.resize(start + bytes / 4, 0.0);
        let target = bytemuck::cast_slice_mut::<f32, u8>(&mut self.data[start..]);
        match BASE64.decode_slice_unchecked(text, target) {
            Ok(written) if written == bytes => {}
            _ => return Err("invalid base64".into()),
        }
        if cfg!(target_endian = "big") {
            for number in &mut self.data[start..] {
                *number = f32::from_bits(number.to_bits().swap_bytes());
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for EncodedVector<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumbersOrBase64;
        impl<'de> Visitor<'de> for NumbersOrBase64 {
            type Value = EncodedVector<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector as numbers or base64")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<EncodedVector<'de>, E> {
                Ok(EncodedVector::Base64(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EncodedVector<'de>, E> {
                Ok(EncodedVector::Base64(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<EncodedVector<'de>, A::Error> {
                let mut numbers = Vec::with_capacity(INITIAL_CAPACITY);
                while let Some(number) = sequence.next_element::<Option<f32>>()? {
                    numbers.push(number.unwrap_or(f32::NAN));
                }
                Ok(EncodedVector::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(NumbersOrBase64)
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
        fn vectors_in_any_order_are_decoded_exactly(
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
            let (flat, dimensions) = indexed(&format!("[{}]", entries.join(",")), count).unwrap();
            prop_assert_eq!(dimensions, length);
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
    fn without_indices_the_order_of_the_response_counts() {
        assert_eq!(
            indexed(r#"[{"embedding":[1,2]},{"embedding":[3,4]}]"#, 2),
            Ok((vec![1.0, 2.0, 3.0, 4.0], 2))
        );
    }

    #[test]
    fn every_error_is_named() {
        let row = |index: usize, vector: &str| format!(r#"{{"index":{index},"embedding":{vector}}}"#);
        let two = |a: String, b: String| indexed(&format!("[{a},{b}]"), 2).unwrap_err();
        assert_eq!(indexed("[]", 1).unwrap_err(), "0 vectors for 1 inputs");
        assert_eq!(two(row(0, "[1]"), row(0, "[1]")), "two vectors for input 0");
        assert_eq!(two(row(0, "[1]"), row(2, "[1]")), "a vector for input 2, of 2");
        assert_eq!(two(row(0, "[1]"), row(1, "[1,2]")), "vectors of 1 and of 2 dimensions");
        assert!(two(row(0, "[1]"), r#"{"embedding":[1]}"#.into()).contains("without an index"));
        assert!(two(row(0, "[]"), row(1, "[]")).contains("without numbers"));
        assert!(two(row(0, "\"AACAPw==\""), row(1, "\"AACA\"")).contains("3 bytes"));
        assert_eq!(two(row(0, "\"AACA!w==\""), row(1, "[1]")), "invalid base64");
        assert!(two(row(0, "[NaN]"), row(1, "[1]")).contains("expected"));
        assert!(two(row(0, "null"), row(1, "[1]")).contains("a vector as numbers or base64"));
    }

    #[test]
    fn a_number_that_is_not_finite_stays_in_the_vector_of_its_input() {
        let nan = format!("\"{}\"", base64(&[f32::NAN]));
        for number in ["[null]", &nan] {
            let body = format!(r#"[{{"index":1,"embedding":{number}}},{{"index":0,"embedding":[1]}}]"#);
            let (flat, dimensions) = indexed(&body, 2).unwrap();
            assert_eq!((flat[0], flat[1].is_finite(), dimensions), (1.0, false, 1), "{number}");
        }
    }
}
