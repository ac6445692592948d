//! What a chunk may have at most: units as configured, and tokens as the model reads them.

use crate::UnitOffsets;

/// A maximum and the offsets that it counts in.
#[derive(Clone, Copy)]
pub(crate) struct Limit<'a> {
    pub(crate) offsets: &'a UnitOffsets,
    pub(crate) max: usize,
    /// Maximum units that a chunk repeats from the previous one.
    pub(crate) overlap: usize,
}

/// The limits of a chunk.
pub(crate) struct Limits<'a> {
    /// The configured size.
    pub(crate) size: Limit<'a>,
    /// The model's maximum of tokens, where the size is in another unit.
    pub(crate) model: Option<Limit<'a>>,
}

impl Limits<'_> {
    fn all(&self) -> impl Iterator<Item = &Limit<'_>> {
        std::iter::once(&self.size).chain(&self.model)
    }

    /// Whether `start..end` can be one chunk.
    pub(crate) fn fits(&self, start: usize, end: usize) -> bool {
        self.all().all(|limit| limit.offsets.size(start, end) <= limit.max)
    }

    /// The largest end of a chunk that begins at `start`. It is above `start`: a character is not divided, even if it
    /// exceeds a limit.
    pub(crate) fn furthest_end(&self, text: &str, start: usize) -> usize {
        let ends = self.all().map(|limit| limit.offsets.furthest_end(start, limit.max));
        ends.min().unwrap_or(text.len()).max(text.ceil_char_boundary(start + 1))
    }

    /// The smallest start of the chunk that follows a chunk that ends at `end`, by the overlap.
    pub(crate) fn earliest_start(&self, end: usize) -> usize {
        if self.size.overlap == 0 {
            return end;
        }
        let starts = self.all().map(|limit| limit.offsets.earliest_start(end, limit.overlap));
        starts.max().unwrap_or(end)
    }

    /// The same at the start of a unit.
    pub(crate) fn unit_start(&self, end: usize) -> usize {
        let starts = self.all().map(|limit| limit.offsets.unit_start(end, limit.overlap));
        starts.max().unwrap_or(end)
    }
}
