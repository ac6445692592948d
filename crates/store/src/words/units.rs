//! Splits a normal text into units: words, and runs of a script whose tokens are pairs. A unit knows what stands before
//! it, so that the rules for technical forms can look at it.

use unicode_segmentation::UnicodeSegmentation as _;

use super::scripts::{Class, Script, class};

/// A part of a text that becomes one token, or a run that becomes a token for each character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit<'t> {
    pub(super) text: &'t str,
    pub(super) kind: UnitKind,
    /// What stands between the unit before this one and this one: separators, or nothing.
    pub(super) gap: &'t str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitKind {
    /// Letters of one script.
    Letters(Script),
    Digits,
    /// Letters and digits that alternate, as in a hash.
    Mixed,
    /// A run of a script whose tokens are pairs of characters.
    Pairs(Script),
}

impl Unit<'_> {
    /// Returns the characters of a run, each with its marks. A line break inside of a run is none of them.
    pub(super) fn characters(&self) -> Vec<&str> {
        self.text.graphemes(true).filter(|cluster| !cluster.starts_with(char::is_whitespace)).collect()
    }

    /// Returns whether the unit consists of letters and is a word by itself.
    pub(super) fn is_letters(&self) -> bool {
        matches!(self.kind, UnitKind::Letters(_))
    }

    /// Returns whether the script of the unit writes words without spaces.
    pub(super) fn is_unspaced(&self) -> bool {
        matches!(self.kind, UnitKind::Pairs(script) if script.is_unspaced())
    }
}

/// Returns the units of a normal text, and what stands after the last one.
pub(super) fn units(text: &str) -> (Vec<Unit<'_>>, &str) {
    let mut units = Vec::new();
    let (mut end, mut position) = (0, 0);
    while let Some(c) = text[position..].chars().next() {
        match class(c) {
            Class::Separator | Class::Mark => position += c.len_utf8(),
            Class::Letter(script) if script.is_paired() => {
                let length = run_length(&text[position..], script);
                let text_of_unit = &text[position..position + length];
                units.push(Unit {
                    text: text_of_unit,
                    kind: UnitKind::Pairs(script),
                    gap: &text[end..position],
                });
                position += length;
                end = position;
            }
            Class::Letter(_) | Class::Digit => {
                let word = Word::at_start(&text[position..]);
                word.push_units(&text[end..position], &mut units);
                position += word.text.len();
                end = position;
            }
        }
    }
    (units, &text[end..])
}

/// Returns the length in bytes of the run of a paired script at the start of a text. A single line break does not end a
/// run of a script without spaces, because lines are broken between any two characters.
fn run_length(text: &str, script: Script) -> usize {
    let mut length = 0;
    let is_of_run = |c: char| class(c) == Class::Letter(script);
    while let Some(c) = text[length..].chars().next() {
        if is_of_run(c) || class(c) == Class::Mark {
            length += c.len_utf8();
            continue;
        }
        let after = &text[length..];
        let after_break = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n'));
        match after_break {
            Some(next) if script.is_unspaced() && next.starts_with(is_of_run) => {
                length += after.len() - next.len();
            }
            _ => break,
        }
    }
    length
}

/// Letters of one script and digits, without a separator between them.
struct Word<'t> {
    text: &'t str,
    script: Option<Script>,
    has_digits: bool,
    /// Position of the first change between letters and digits.
    first_change: usize,
    changes: usize,
}

impl<'t> Word<'t> {
    /// Reads the word at the start of a text.
    fn at_start(text: &'t str) -> Self {
        let mut word = Self { text, script: None, has_digits: false, first_change: 0, changes: 0 };
        let mut last_is_digit = None;
        for (position, c) in text.char_indices() {
            let is_digit = match class(c) {
                Class::Mark => continue,
                Class::Digit => true,
                Class::Letter(script) if !script.is_paired() && word.script.is_none_or(|s| s == script) => {
                    word.script = Some(script);
                    false
                }
                _ => {
                    word.text = &text[..position];
                    break;
                }
            };
            word.has_digits |= is_digit;
            if last_is_digit.is_some_and(|last| last != is_digit) {
                word.changes += 1;
                if word.changes == 1 {
                    word.first_change = position;
                }
            }
            last_is_digit = Some(is_digit);
        }
        word
    }

    /// Adds the word: as two units if it is letters and a number, such as `utf8`, `v1` or `5kg`, else as one.
    fn push_units(&self, gap: &'t str, units: &mut Vec<Unit<'t>>) {
        let letters = UnitKind::Letters(self.script.unwrap_or(Script::Other));
        match (self.changes, self.script) {
            (0, None) => units.push(Unit { text: self.text, kind: UnitKind::Digits, gap }),
            (0, Some(_)) => units.push(Unit { text: self.text, kind: letters, gap }),
            (1, _) => {
                let (first, second) = self.text.split_at(self.first_change);
                let starts_with_digit = self.text.chars().next().is_some_and(|c| class(c) == Class::Digit);
                let (kind, next_kind) =
                    if starts_with_digit { (UnitKind::Digits, letters) } else { (letters, UnitKind::Digits) };
                units.push(Unit { text: first, kind, gap });
                units.push(Unit { text: second, kind: next_kind, gap: "" });
            }
            _ => units.push(Unit { text: self.text, kind: UnitKind::Mixed, gap }),
        }
    }
}

/// How two units are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// Not at all.
    Apart,
    /// By a change of the script, or between letters and digits.
    Direct,
    /// By a hyphen, an apostrophe or a slash, as words of a language are.
    Soft,
    /// By a sign of a technical form.
    Hard,
}

/// Hyphens and dashes that join two words.
pub(super) const HYPHENS: [char; 5] = ['-', '‐', '‑', '–', '−'];

/// Returns how a unit is joined to the unit before it.
pub(super) fn joint(before: &Unit<'_>, unit: &Unit<'_>) -> Joint {
    let mut signs = unit.gap.chars();
    let Some(sign) = signs.next() else { return Joint::Direct };
    let is_unspaced = before.is_unspaced() || unit.is_unspaced();
    if signs.next().is_some() {
        let is_technical = !is_unspaced
            && unit.gap.len() <= 3
            && unit.gap.chars().all(|c| ".@/\\_:+=%~#$^&?-".contains(c))
            && !["--", "---", "..", "..."].contains(&unit.gap)
            // Names with signs that stand side by side: `C++/C#`.
            && !unit.gap.starts_with(['+', '#']);
        return if is_technical { Joint::Hard } else { Joint::Apart };
    }
    match sign {
        '\'' | '’' | '‘' | '′' | '`' | '·' | '״' | '׳' | '/' => Joint::Soft,
        sign if HYPHENS.contains(&sign) => Joint::Soft,
        ',' if before.kind == UnitKind::Digits && unit.kind == UnitKind::Digits => Joint::Hard,
        '@' | '_' | '\\' => Joint::Hard,
        '.' if !unit.is_unspaced() => Joint::Hard,
        ':' | '+' | '=' | '%' | '~' | '#' | '$' | '^' | '&' | '?' if !is_unspaced => Joint::Hard,
        _ => Joint::Apart,
    }
}

/// Returns the parts of a word in `camelCase`, or nothing if it is not.
pub(super) fn camel_case_parts<'t>(unit: &Unit<'t>) -> Vec<&'t str> {
    if !unit.is_letters() {
        return Vec::new();
    }
    let text = unit.text;
    // Most words have no capital after their first letter.
    if !text.chars().skip(1).any(char::is_uppercase) {
        return Vec::new();
    }
    let letters: Vec<(usize, char)> = text.char_indices().filter(|(_, c)| class(*c) != Class::Mark).collect();
    let mut parts = Vec::new();
    let mut start = 0;
    for index in 1..letters.len() {
        let (position, c) = letters[index];
        let after_lower = letters[index - 1].1.is_lowercase() && c.is_uppercase();
        // The last capital of `HTTPServer` begins a word.
        let before_lower = letters[index - 1].1.is_uppercase()
            && c.is_uppercase()
            && letters.get(index + 1).is_some_and(|(_, next)| next.is_lowercase());
        if after_lower || before_lower {
            parts.push(&text[start..position]);
            start = position;
        }
    }
    // Parts of one letter on average are no words: the text is encoded data.
    if parts.is_empty() || 2 * (parts.len() + 1) > letters.len() {
        return Vec::new();
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        units(text).0.iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn a_unit_ends_at_separators_scripts_and_numbers() {
        for (text, expected) in [
            ("The quick, brown fox.", vec!["The", "quick", "brown", "fox"]),
            ("使用Redis缓存", vec!["使用", "Redis", "缓存"]),
            ("v1.2.3-rc1", vec!["v", "1", "2", "3", "rc", "1"]),
            ("3f2a9c utf8 5kg", vec!["3f2a9c", "utf", "8", "5", "kg"]),
            ("get_user_name", vec!["get", "user", "name"]),
            ("SQLзапрос", vec!["SQL", "запрос"]),
            ("हिन्दी में", vec!["हिन्दी", "में"]),
            ("第3章", vec!["第", "3", "章"]),
            ("数据\n库", vec!["数据\n库"]),
            ("数据\n\n库", vec!["数据", "库"]),
            ("한국어 처리", vec!["한국어", "처리"]),
            ("", vec![]),
            ("-- ; '", vec![]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        assert_eq!(units("a, b!").1, "!");
        assert_eq!(units("数据\n库").0[0].characters(), ["数", "据", "库"]);
    }

    #[test]
    fn camel_case_has_parts() {
        let parts = |text| camel_case_parts(&units(text).0[0]);
        assert_eq!(parts("getUserName"), ["get", "User", "Name"]);
        assert_eq!(parts("HTTPServer"), ["HTTP", "Server"]);
        assert_eq!(parts("iPhone"), ["i", "Phone"]);
        for word in ["word", "Word", "HTTP", "aBcDeF"] {
            assert!(parts(word).is_empty(), "{word}");
        }
    }
}
