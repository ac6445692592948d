//! Divides a text into the pieces whose tokens are counted. A tokenizer never sees more than [`MAX_UNIT_BYTES`] at once,
//! because some of them need quadratic time for a long run without a boundary.

use unicode_segmentation::{UWordBoundIndices, UnicodeSegmentation as _};

use crate::offsets::MAX_UNIT_BYTES;

/// Maximum white space that is counted together with the word after it. Longer white space is counted by itself, because
/// its tokens would be attributed to the word.
const MAX_LEADING_SPACE_BYTES: usize = 8;

/// Maximum length of a word that is counted together with its neighbours: a letter with its marks.
const MAX_UNSPACED_BYTES: usize = 16;

/// A piece of a text, in byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the counted text begins: a word has the white space before it.
    pub(crate) start: usize,
    /// Where the part begins that the tokens are attributed to.
    pub(crate) visible: usize,
    pub(crate) end: usize,
}

/// How neighbouring words without white space between them are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    /// Alone.
    Word,
    /// Together: tokenizers merge symbols, such as `----`.
    Symbols,
    /// Together: tokenizers merge the characters of scripts without spaces.
    Unspaced,
}

/// The pieces of a text, in order. They cover the text without the white space at its end.
pub(crate) struct Pieces<'t> {
    text: &'t str,
    words: std::iter::Peekable<UWordBoundIndices<'t>>,
    /// Text of one class that is not returned yet.
    rest: Option<(Class, usize, usize)>,
    /// Where the white space before the next word begins.
    space: Option<usize>,
}

impl<'t> Pieces<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, words: text.split_word_bound_indices().peekable(), rest: None, space: None }
    }

    /// The next words of one class, at least one of them, and no more than a piece has bytes.
    fn next_run(&mut self) -> Option<(Class, usize, usize)> {
        if let Some(rest) = self.rest.take() {
            return Some(rest);
        }
        let (start, word) = self.words.next()?;
        let (class, mut end) = (class(word), start + word.len());
        let fits = |&(start_of_next, next): &(usize, &str)| {
            class != Class::Word
                && self::class(next) == class
                && start_of_next + next.len() - start <= MAX_UNIT_BYTES
        };
        while let Some((offset, next)) = self.words.next_if(fits) {
            end = offset + next.len();
        }
        Some((class, start, end))
    }

    /// The end of the first part of `start..end` that one piece has space for.
    fn part_end(&self, start: usize, end: usize) -> usize {
        if end - start <= MAX_UNIT_BYTES {
            return end;
        }
        self.text.floor_char_boundary(start + MAX_UNIT_BYTES)
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            let (class, start, end) = self.next_run()?;
            let part_end = self.part_end(start, end);
            if part_end < end {
                self.rest = Some((class, part_end, end));
            }
            if class != Class::Space {
                let with_space = self.space.take().unwrap_or(start);
                return Some(Piece { start: with_space, visible: start, end: part_end });
            }
            let space = self.space.unwrap_or(start);
            if part_end - space <= MAX_LEADING_SPACE_BYTES {
                self.space = Some(space);
                continue;
            }
            // The last character stays with the word after it.
            let last =
                self.text[space..part_end].char_indices().next_back().map_or(part_end, |(at, _)| space + at);
            self.space = Some(last);
            return Some(Piece { start: space, visible: space, end: last });
        }
    }
}

fn class(word: &str) -> Class {
    let Some(first) = word.chars().next() else { return Class::Space };
    if first.is_whitespace() {
        Class::Space
    } else if !word.chars().any(char::is_alphanumeric) {
        Class::Symbols
    } else if !first.is_ascii() && word.len() <= MAX_UNSPACED_BYTES {
        // UAX #29 does not join the letters of scripts that are written without spaces.
        Class::Unspaced
    } else {
        Class::Word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        Pieces::new(text).map(|piece| &text[piece.start..piece.end]).collect()
    }

    #[test]
    fn a_word_has_its_space_and_symbols_stay_together() {
        assert_eq!(pieces("a bc  d"), ["a", " bc", "  d"]);
        assert_eq!(pieces("|---|---| x();"), ["|---|---|", " x", "();"]);
        assert_eq!(pieces("狐狸 ok狐"), ["狐狸", " ok", "狐"]);
    }

    #[test]
    fn no_piece_is_long_and_all_text_is_in_one() {
        for text in
            ["\n".repeat(300) + "b", "x".repeat(300), "狐".repeat(99), "-".repeat(200), "é\u{301}".repeat(99)]
        {
            let pieces = pieces(&text);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_UNIT_BYTES + MAX_LEADING_SPACE_BYTES));
        }
    }
}
