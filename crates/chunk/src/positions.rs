//! The byte and character offsets of chunks, in one pass over the text.

use std::ops::Range;

use crate::{ChunkError, TextChunk, progress::Progress};

/// Converts ranges of the content of a text to chunks of the text. What is before the content belongs to no chunk.
pub(crate) struct Positions<'t> {
    text: &'t str,
    /// Where the content begins.
    content: usize,
    start: Cursor<'t>,
    end: Cursor<'t>,
    /// The last visible character before `end`: where it ends in bytes and in characters.
    visible_end: (usize, usize),
}

/// A place in a text that moves forward.
struct Cursor<'t> {
    text: &'t str,
    byte: usize,
    character: usize,
}

impl Cursor<'_> {
    /// Moves behind the next character and returns it.
    fn advance(&mut self) -> Option<char> {
        let next = self.text[self.byte..].chars().next()?;
        self.byte += next.len_utf8();
        self.character += 1;
        Some(next)
    }

    fn is_before_space(&self) -> bool {
        self.text[self.byte..].starts_with(char::is_whitespace)
    }
}

impl<'t> Positions<'t> {
    /// `content` is a byte offset.
    pub(crate) fn new(text: &'t str, content: usize) -> Self {
        let cursor = || Cursor { text, byte: 0, character: 0 };
        Self { text, content, start: cursor(), end: cursor(), visible_end: (0, 0) }
    }

    /// The chunks at these ranges of the content, whose starts ascend and whose ends do not descend. White space around a
    /// chunk is left out. A range without visible text, or without text after the previous chunk, has no chunk.
    pub(crate) fn chunks(
        &mut self,
        ranges: impl Iterator<Item = Range<usize>>,
        progress: &Progress<'_>,
    ) -> Result<Vec<TextChunk<'t>>, ChunkError> {
        let mut chunks: Vec<TextChunk<'t>> = Vec::new();
        for range in ranges {
            progress.step()?;
            let (start, end) = (range.start + self.content, range.end + self.content);
            while self.start.byte < start || (self.start.byte < end && self.start.is_before_space()) {
                progress.step()?;
                self.start.advance();
            }
            while self.end.byte < end {
                progress.step()?;
                if self.end.advance().is_some_and(|character| !character.is_whitespace()) {
                    self.visible_end = (self.end.byte, self.end.character);
                }
            }
            let bytes = self.start.byte..self.visible_end.0;
            let repeats = chunks.last().is_some_and(|last| bytes.end <= last.bytes.end);
            if bytes.start < bytes.end && !repeats {
                let characters = self.start.character..self.visible_end.1;
                chunks.push(TextChunk {
                    text: &self.text[bytes.clone()],
                    bytes,
                    characters,
                    headings: Vec::new(),
                });
            }
        }
        Ok(chunks)
    }
}
