//! A cached vector, and its bytes in a persistent cache: a version, the fields, the numbers.

use std::sync::Arc;

use embeddery_core::{SpaceId, vector_defect};

/// The vector of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The numbers.
    pub vector: Arc<[f32]>,
    /// Tokens the model read.
    pub tokens: u32,
    /// Whether the text was truncated.
    pub cut: bool,
    /// The space of vectors with which it may be compared.
    pub space: SpaceId,
}

const VERSION: u8 = 1;

impl Entry {
    /// Approximate bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.vector.len() * 4 + 160
    }

    /// The bytes for a persistent cache.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let space = self.space.as_str().as_bytes();
        let length = u16::try_from(space.len()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(8 + space.len() + self.vector.len() * 4);
        bytes.extend([VERSION, u8::from(self.cut)]);
        bytes.extend(self.tokens.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(&space[..usize::from(length)]);
        self.vector.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes
    }

    /// The entry of bytes from a persistent cache. `None` if they are not complete, of another version, or have a vector
    /// that cannot be compared.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, cut @ (0 | 1)], rest) = bytes.split_first_chunk()? else { return None };
        let (tokens, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (space, numbers) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (numbers, []) = numbers.as_chunks() else { return None };
        let vector: Arc<[f32]> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
        let whole = !space.is_empty() && !vector.is_empty() && vector_defect(&vector).is_none();
        whole.then_some(Self {
            vector,
            tokens: u32::from_le_bytes(*tokens),
            cut: *cut == 1,
            space: SpaceId::new(str::from_utf8(space).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vector_that_cannot_be_compared_is_not_read() {
        for (vector, is_read) in [([0.0, 0.0], false), ([f32::NAN, 1.0], false), ([0.0, -1.0], true)] {
            let entry = Entry { vector: vector.into(), tokens: 1, cut: false, space: SpaceId::new("s") };
            assert_eq!(Entry::from_bytes(&entry.to_bytes()).is_some(), is_read, "{vector:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back_and_a_part_of_it_does_not(
            vector in proptest::collection::vec(1e-3f32..1e3, 1..40), tokens: u32, cut: bool, keep in 0usize..200,
        ) {
            let entry = Entry { vector: vector.into(), tokens, cut, space: SpaceId::new("a space:3") };
            let bytes = entry.to_bytes();
            prop_assert_eq!(Entry::from_bytes(&bytes), Some(entry.clone()));
            if let Some(broken) = bytes.get(..keep.min(bytes.len() - 1)) {
                prop_assert_ne!(Entry::from_bytes(broken), Some(entry));
            }
        }

        #[test]
        fn foreign_bytes_are_nothing_and_no_panic(bytes: Vec<u8>) {
            let _ = Entry::from_bytes(&bytes);
        }
    }
}
