//! A buffer for JSON of many numbers. serde_json writes one number at a time; copying its dozen bytes without a call
//! of `memmove` halves the time to serialize a response.

use std::io;

/// A growing buffer.
pub(crate) struct JsonBuffer {
    /// Written up to `end`; zeros after it.
    bytes: Vec<u8>,
    end: usize,
}

/// Bytes of two words.
const SHORT: usize = 16;
const WORD: usize = 8;

impl JsonBuffer {
    /// With capacity for about this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], end: 0 }
    }

    /// The written bytes.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes
    }

    #[cold]
    fn write_long(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end + SHORT > self.bytes.len() {
            self.bytes.resize((end + SHORT).max(2 * self.bytes.len()), 0);
        }
        self.bytes[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }
}

impl io::Write for JsonBuffer {
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len();
        match self.bytes.get_mut(self.end..self.end + SHORT) {
            // Two words that overlap are any length from one to two.
            Some(space) if (WORD..=SHORT).contains(&length) => {
                space[..WORD].copy_from_slice(&bytes[..WORD]);
                space[length - WORD..length].copy_from_slice(&bytes[length - WORD..]);
                self.end += length;
            }
            Some(space) if length < WORD => {
                space.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                self.end += length;
            }
            _ => self.write_long(bytes),
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_bytes_are_kept(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..60),
            capacity in 0_usize..200,
        ) {
            let mut json = JsonBuffer::with_capacity(capacity);
            parts.iter().for_each(|part| json.write_all(part).unwrap());
            prop_assert_eq!(json.into_bytes(), parts.concat());
        }
    }
}
