//! Equal texts in one form. [`normalize`] works on a whole text, before it is split: Unicode's compatibility
//! composition (NFKC), without characters that are not visible, and with decimal digits of all scripts as ASCII.
//! [`fold`] works on one word: full case folding, and accents removed where they are not part of the letter.

use std::borrow::Cow;

use unicode_normalization::{
    IsNormalized, UnicodeNormalization as _, char::is_combining_mark, is_nfkc_quick,
};

use super::scripts::{Class, Script, class};

/// Returns a text in its normal form.
pub(super) fn normalize(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut mapped = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            // Soft hyphen, joiners, directions, variation selectors, tatweel, and the space without width, at which a
            // line may break: they change how a word looks.
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{640}'
            | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{e0100}'..='\u{e01ef}' => {}
            // Signs whose compatibility form is letters that would join the word before them.
            '©' | '®' | '™' | '℠' => mapped.push(' '),
            '´' | '\u{2bb}' | '\u{2bc}' => mapped.push('\''),
            // Spaces that do not break separate the groups of a number.
            '\u{a0}' | '\u{2009}' | '\u{202f}'
                if mapped.ends_with(|c: char| c.is_ascii_digit())
                    && characters.peek().is_some_and(char::is_ascii_digit) =>
            {
                mapped.push('\'');
            }
            '♯' => mapped.push('#'),
            // An exponent or a footnote is not part of the number or the word before it.
            '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' => {
                mapped.push('^');
                mapped.push(c);
            }
            // Fractions and enclosed characters stand for themselves.
            '¼'..='¾' | '⅐'..='⅞' | '↉' | '①'..='⓿' | '㈀'..='㋿' => {
                mapped.push(' ');
                mapped.push(c);
                mapped.push(' ');
            }
            _ => mapped.push(ascii_digit(c).unwrap_or(c)),
        }
    }
    let mut normal = match is_nfkc_quick(mapped.chars()) {
        IsNormalized::Yes => mapped,
        IsNormalized::No | IsNormalized::Maybe => mapped.nfkc().collect(),
    };
    for (decomposed, vowel) in SARA_AM {
        if normal.contains(decomposed) {
            normal = normal.replace(decomposed, vowel);
        }
    }
    Cow::Owned(normal)
}

/// The vowel am of Thai and Lao. NFKC decomposes it, but dictionaries of words hold it as one letter.
const SARA_AM: [(&str, &str); 2] = [("\u{e4d}\u{e32}", "\u{e33}"), ("\u{ecd}\u{eb2}", "\u{eb3}")];

/// The zeros of scripts with their own decimal digits. The other nine follow each zero.
const ZEROS: [char; 19] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}',
    '\u{c66}', '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}', '\u{17e0}', '\u{1810}',
    '\u{1090}',
];

fn ascii_digit(c: char) -> Option<char> {
    if !('\u{660}'..='\u{1819}').contains(&c) {
        return None;
    }
    let value =
        ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(u32::from(*zero)).filter(|v| *v < 10))?;
    char::from_digit(value, 10)
}

/// Returns a word in the form that is compared, possibly empty.
///
/// - Case: `ß` is `ss`, `ς` is `σ`. `I`, `i`, `ı` and `İ` are one letter, because a text does not tell its language.
/// - Latin and Greek: accents are removed, and strokes and ligatures: `đ` is `d`, `ø` is `o`, `æ` is `ae`.
/// - Cyrillic: `ё` is `е`, and stress marks are removed. `й` and `ї` are letters.
/// - Arabic and Hebrew: vowel signs are removed; forms of alef, of yeh and of kaf are one letter each, and `ة` is `ه`.
/// - All other scripts keep their marks.
pub(super) fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(word.len());
    let (mut script, mut base) = (Script::Other, ' ');
    for c in word.nfd() {
        if is_combining_mark(c) {
            let is_removed = match script {
                Script::Latin | Script::Greek | Script::Semitic => true,
                Script::Cyrillic => {
                    matches!(c, '\u{300}' | '\u{301}' | '\u{341}')
                        || matches!((base, c), ('\u{435}' | '\u{415}', '\u{308}'))
                }
                _ => false,
            };
            if !is_removed {
                folded.push(c);
            }
            continue;
        }
        let previous = std::mem::replace(&mut base, c);
        if let Class::Letter(letter) = class(c) {
            script = letter;
        }
        match c {
            'đ' | 'Đ' | 'ð' | 'Ð' => folded.push('d'),
            'ħ' | 'Ħ' => folded.push('h'),
            'ł' | 'Ł' => folded.push('l'),
            'ø' | 'Ø' => folded.push('o'),
            'ŧ' | 'Ŧ' => folded.push('t'),
            'æ' | 'Æ' => folded.push_str("ae"),
            'œ' | 'Œ' => folded.push_str("oe"),
            'þ' | 'Þ' => folded.push_str("th"),
            // The Armenian ligature `և` is `եւ` in Unicode, and `ԵՎ` in capitals of today.
            '\u{582}' | '\u{552}' if matches!(previous, '\u{565}' | '\u{535}') => folded.push('\u{57e}'),
            '\u{671}' => folded.push('\u{627}'),             // alef wasla
            '\u{649}' | '\u{6cc}' => folded.push('\u{64a}'), // alef maksura and Persian yeh
            '\u{6a9}' => folded.push('\u{643}'),             // Persian kaf
            '\u{629}' => folded.push('\u{647}'),             // teh marbuta
            // Lower, upper, lower is full case folding for all letters that have a case.
            _ => folded.extend(c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)),
        }
    }
    folded.nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_word_fold_to_one_form() {
        let table: &[(&[&str], &str)] = &[
            (&["Straße", "STRASSE", "STRAẞE", "strasse"], "strasse"),
            (&["ΟΔΟΣ", "οδός", "Οδος"], "οδοσ"),
            (&["Isparta", "ISPARTA", "ısparta", "İsparta"], "isparta"),
            (&["Müller", "Mu\u{308}ller", "MULLER"], "muller"),
            (&["tiếng", "tie\u{302}\u{301}ng", "TIENG"], "tieng"),
            (&["Łódź", "lodz"], "lodz"),
            (&["đường", "Duong"], "duong"),
            (&["ёлка", "Елка", "е\u{308}лка"], "елка"),
            (&["й", "и\u{306}", "Й"], "й"),
            (&["ї", "і\u{308}"], "ї"),
            (&["مُحَمَّد", "محمد"], "محمد"),
            (&["أحمد", "احمد"], "احمد"),
            (&["شָלוֹם"; 0], ""),
            (&["שָׁלוֹם", "שלום"], "שלום"),
            (&["Ⴀ", "ⴀ"], "ⴀ"),
            (&["Თბილისი", "თბილისი"], "თბილისი"),
            (&["Երևան", "ԵՐԵՒԱՆ", "ԵՐԵՎԱՆ"], "երեվան"),
            (&["हिन्दी"], "हिन्दी"),
            (&["क़लम", "क\u{93c}लम"], "क\u{93c}लम"),
            (&["が", "か\u{3099}"], "が"),
            (&["ﬁle", "file"], "file"),
        ];
        for (spellings, form) in table {
            for spelling in *spellings {
                assert_eq!(fold(&normalize(spelling)), *form, "{spelling}");
            }
        }
    }

    #[test]
    fn a_text_has_one_normal_form() {
        for (text, form) in [
            ("Ｒｅｄｉｓ　７．２", "Redis 7.2"),
            ("ﾊﾝｶｸ", "ハンカク"),
            ("२०२४ ٢٠٢٤ ๒๕๖๗", "2024 2024 2567"),
            ("Daten\u{ad}bank", "Datenbank"),
            ("1\u{202f}000\u{a0}000\u{a0}kg", "1'000'000 kg"),
            ("ភាសា\u{200b}ខ្មែរ", "ភាសាខ្មែរ"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("محـــمد", "محمد"),
            ("น้ำ ทำงาน", "น้\u{e33} ท\u{e33}งาน"),
            ("ท\u{e4d}\u{e32}งาน", "ท\u{e33}งาน"),
            ("ນ\u{ec9}\u{eb3}", "ນ\u{ec9}\u{eb3}"),
            ("Café™ m² 2½", "Café  m^2 2 1⁄2 "),
        ] {
            assert_eq!(normalize(text), form);
        }
    }
}
