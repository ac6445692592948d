//! Scripts, as far as words are concerned. A word ends where the script changes.

use unicode_normalization::char::is_combining_mark;

/// The script of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Latin,
    Greek,
    Cyrillic,
    /// Arabic and Hebrew, whose vowel signs are optional.
    Semitic,
    /// Chinese characters, kana, Bopomofo and Yi: written without spaces.
    Ideographic,
    Hangul,
    /// Thai, Lao, Khmer, Burmese and the scripts beside them: written without spaces.
    SoutheastAsian,
    /// Every other script, written with spaces, with marks that belong to its letters.
    Other,
}

impl Script {
    /// Returns whether tokens are pairs of characters.
    pub(super) fn is_paired(self) -> bool {
        matches!(self, Self::Ideographic | Self::Hangul | Self::SoutheastAsian)
    }

    /// Returns whether words are written without spaces between them.
    pub(super) fn is_unspaced(self) -> bool {
        matches!(self, Self::Ideographic | Self::SoutheastAsian)
    }
}

/// What a character is in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Letter(Script),
    Digit,
    /// A combining mark. It belongs to the character before it.
    Mark,
    /// Not part of a word.
    Separator,
}

/// Returns what a character is in a word.
pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter(Script::Latin),
        '0'..='9' => Class::Digit,
        '\0'..='\x7f' => Class::Separator,
        _ if is_combining_mark(c) => Class::Mark,
        // Apostrophes by use, letters by their category.
        '\u{2bb}' | '\u{2bc}' => Class::Separator,
        _ if !c.is_alphanumeric() => Class::Separator,
        _ => match script(c) {
            Script::Latin | Script::Other if c.is_numeric() => Class::Digit,
            script => Class::Letter(script),
        },
    }
}

fn script(c: char) -> Script {
    match c {
        '\u{80}'..='\u{2ff}'
        | '\u{1d00}'..='\u{1dbf}'
        | '\u{1e00}'..='\u{1eff}'
        | '\u{2c60}'..='\u{2c7f}'
        | '\u{a720}'..='\u{a7ff}'
        | '\u{ab30}'..='\u{ab6f}' => Script::Latin,
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Script::Greek,
        '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{a640}'..='\u{a69f}' => Script::Cyrillic,
        '\u{590}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{860}'..='\u{8ff}' => Script::Semitic,
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{1950}'..='\u{19ff}'
        | '\u{1a20}'..='\u{1aaf}'
        | '\u{a9e0}'..='\u{a9ff}'
        | '\u{aa60}'..='\u{aadf}' => Script::SoutheastAsian,
        '\u{1100}'..='\u{11ff}'
        | '\u{3130}'..='\u{318f}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7ff}' => Script::Hangul,
        '\u{2e80}'..='\u{2fdf}'
        | '\u{3005}'..='\u{30ff}'
        | '\u{3105}'..='\u{312f}'
        | '\u{31a0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{a000}'..='\u{a4cf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{1b000}'..='\u{1b16f}'
        | '\u{20000}'..='\u{3ffff}' => Script::Ideographic,
        _ => Script::Other,
    }
}
