//! The tokens of a text, for an index.

use super::{
    normalize::{fold, normalize},
    units::{HYPHENS, Joint, Unit, UnitKind, camel_case_parts, joint, units},
};

/// Maximum bytes of a token, without the prefix of its collection. A longer word is indexed and searched by its start.
pub(super) const MAX_TOKEN_BYTES: usize = 256;

/// Maximum bytes of all tokens of a text. PostgreSQL's `tsvector` holds one MiB, in which each token also takes its
/// position and its alignment. Words after the limit are not indexed. A token also counts the prefix of its collection: the limit
/// is at least 45,000 Chinese characters or English words of mean length, which no embedding model reads.
const MAX_TEXT_BYTES: usize = 1_000_000;

/// Bytes that PostgreSQL stores beside a token: the number of positions, a position, the alignment and its entry.
const BYTES_BESIDE_TOKEN: usize = 6;

/// The tokens of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexedWords {
    /// Tokens in the order of the text, each followed by a space. A token holds no space. The n-th token has position n.
    pub(crate) words: String,
    /// Other spellings of words, in the same form: the parts of `camelCase`, joined numbers, and names with signs.
    pub(crate) spellings: String,
    /// Number of tokens in both.
    pub(crate) count: usize,
}

/// Returns what stands before each token of a collection, so that a search reads the entries of its own collection only.
/// A token has no underscore.
pub(crate) fn collection_prefix(collection: i64) -> String {
    format!("{collection:x}_")
}

/// Returns the tokens of a text, each after `prefix`.
pub(crate) fn index_words(prefix: &str, text: &str) -> IndexedWords {
    let text = normalize(text);
    let (units, trailing) = units(&text);
    let mut writer = TokenWriter { prefix, indexed: IndexedWords::default(), bytes: 0 };
    writer.indexed.words.reserve(text.len() + units.len() * (prefix.len() + 1));
    for (position, unit) in units.iter().enumerate() {
        let next = units.get(position + 1);
        let after = next.map_or(trailing, |next| next.gap);
        match unit.kind {
            UnitKind::Pairs(_) => {
                for token in pair_tokens(&unit.characters()) {
                    writer.word(&token);
                }
            }
            UnitKind::Letters(_) | UnitKind::Digits | UnitKind::Mixed => {
                writer.word(&fold(unit.text));
                for part in camel_case_parts(unit) {
                    writer.spelling(&fold(part));
                }
                if let Some(name) = name_with_sign(unit, after, next) {
                    writer.spelling(&name);
                }
                if is_start(&units, position)
                    && let Some(joined) = joined_form(&units[position..])
                {
                    writer.spelling(&joined);
                }
            }
        }
    }
    writer.indexed
}

struct TokenWriter<'a> {
    prefix: &'a str,
    indexed: IndexedWords,
    bytes: usize,
}

impl TokenWriter<'_> {
    fn word(&mut self, token: &str) {
        if self.admits(token) {
            push_token(&mut self.indexed.words, self.prefix, token);
        }
    }

    fn spelling(&mut self, token: &str) {
        if self.admits(token) {
            push_token(&mut self.indexed.spellings, self.prefix, token);
        }
    }

    fn admits(&mut self, token: &str) -> bool {
        let bytes = self.prefix.len() + token.len().min(MAX_TOKEN_BYTES) + BYTES_BESIDE_TOKEN;
        if token.is_empty() || self.bytes + bytes > MAX_TEXT_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.indexed.count += 1;
        true
    }
}

fn push_token(tokens: &mut String, prefix: &str, token: &str) {
    tokens.push_str(prefix);
    tokens.push_str(bounded(token));
    tokens.push(' ');
}

/// Returns a token within [`MAX_TOKEN_BYTES`].
pub(super) fn bounded(token: &str) -> &str {
    &token[..token.floor_char_boundary(MAX_TOKEN_BYTES)]
}

/// Returns the tokens of a run: each character with the next one, and the last character alone.
pub(super) fn pair_tokens(characters: &[&str]) -> Vec<String> {
    let mut tokens: Vec<String> = characters.windows(2).map(|pair| fold(&pair.concat())).collect();
    tokens.extend(characters.last().map(|last| fold(last)));
    tokens
}

/// Maximum bytes of a name that is indexed with its sign.
const MAX_SIGNED_NAME_BYTES: usize = 16;

/// Returns a word with the sign that is part of its name: `c++`, `c#`, `.net`, and the extension of a file name.
pub(super) fn name_with_sign(unit: &Unit<'_>, after: &str, next: Option<&Unit<'_>>) -> Option<String> {
    if unit.text.len() > MAX_SIGNED_NAME_BYTES {
        return None;
    }
    if unit.is_letters() {
        let is_followed = |signs: &str| after == signs && next.is_some();
        if after.starts_with("++") && !(is_followed("++") && next.is_some_and(Unit::is_letters)) {
            return Some(fold(unit.text) + "++");
        }
        if after.starts_with('#') && !is_followed("#") {
            return Some(fold(unit.text) + "#");
        }
    }
    let before_dot = unit.gap.strip_suffix('.')?;
    let is_name = unit.kind != UnitKind::Digits && !is_one_letter(unit) && !before_dot.ends_with('.');
    let is_last = next.is_none_or(|next| joint(unit, next) == Joint::Apart);
    (is_name && is_last).then(|| format!(".{}", fold(unit.text)))
}

/// Returns whether no unit before this one belongs to the same joined form.
fn is_start(units: &[Unit<'_>], position: usize) -> bool {
    let unit = &units[position];
    position == 0
        || unit.gap.is_empty()
        || unit.gap.contains(char::is_whitespace)
        || (unit.gap.chars().count() > 1)
        || units[position - 1].kind != unit.kind
}

/// Maximum units of a joined form, so that the work for a text is linear: a form can begin at every unit.
const MAX_JOINED_UNITS: usize = 64;

/// Returns the spelling without separators of the form at the start of `units`: `1000000` for `1,000,000`, `usa` for
/// `U.S.A.`, `email` for `e-mail`.
pub(super) fn joined_form(units: &[Unit<'_>]) -> Option<String> {
    let first = units.first()?;
    let separator = units.get(1)?.gap;
    let mut signs = separator.chars();
    let (sign, None) = (signs.next()?, signs.next()) else { return None };
    let joined = |belongs: &dyn Fn(&Unit<'_>) -> bool| {
        let following = units[1..].iter().take(MAX_JOINED_UNITS);
        #[cfg(test)]
        let following = following.inspect(|_| tests::STEPS.set(tests::STEPS.get() + 1));
        following.take_while(|unit| unit.gap == separator && belongs(unit)).count()
    };
    let count = match first.kind {
        UnitKind::Digits if first.text.len() <= 3 && ".,'’_".contains(sign) => {
            let groups = joined(&|unit| unit.kind == UnitKind::Digits && unit.text.len() == 3);
            // A group that continues with another number is an address or a version.
            let is_number = units.get(groups + 1).is_none_or(|unit| unit.gap != separator);
            if is_number { groups } else { 0 }
        }
        UnitKind::Letters(_) if sign == '.' && is_one_letter(first) => {
            joined(&|unit| unit.is_letters() && is_one_letter(unit))
        }
        // Compounds of more than two words are written with their hyphens.
        UnitKind::Letters(_) if HYPHENS.contains(&sign) => joined(&|unit| unit.is_letters()).min(2) % 2,
        _ => 0,
    };
    (count > 0).then(|| units[..=count].iter().map(|unit| fold(unit.text)).collect())
}

fn is_one_letter(unit: &Unit<'_>) -> bool {
    unit.text.chars().nth(1).is_none()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Units that were read to find joined forms.
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn the_work_for_joined_forms_is_linear() {
        for part in ["000,", "a.", "a-b-c-", "a-б-", "1.a.", "000'"] {
            let steps = |parts: usize| {
                STEPS.set(0);
                index_words("", &part.repeat(parts));
                STEPS.get()
            };
            for parts in [1000, 2000, 4000, 8000] {
                assert!(steps(parts) <= 3 * parts * MAX_JOINED_UNITS, "{part}: {}", steps(parts));
            }
        }
    }

    fn tokens(text: &str) -> (String, String) {
        let IndexedWords { words, spellings, count } = index_words("", text);
        assert_eq!(count, words.split_whitespace().count() + spellings.split_whitespace().count());
        (words.trim_end().into(), spellings.trim_end().into())
    }

    #[test]
    fn a_text_becomes_tokens_in_order() {
        for (text, words, spellings) in [
            ("The Quick fox's den", "the quick fox s den", ""),
            ("使用Redis缓存", "使用 用 redis 缓存 存", ""),
            ("数据库", "数据 据库 库", ""),
            ("แมวกิน", "แม มว วกิ กิน น", ""),
            ("jane.doe@example.com", "jane doe example com", ".com"),
            ("192.168.1.10:8080", "192 168 1 10 8080", ""),
            ("v1.2.3-rc1", "v 1 2 3 rc 1", ""),
            ("1,000,000 or 1000", "1 000 000 or 1000", "1000000"),
            ("C++ and C# on .NET", "c and c on net", "c++ c# .net"),
            ("C:\\Temp\\a.txt", "c temp a txt", ".txt"),
            ("getUserName()", "getusername", "get user name"),
            ("an e-mail, state-of-the-art", "an e mail state of the art", "email"),
            ("the U.S.A. team", "the u s a team", "usa"),
            ("한국어", "한국 국어 어", ""),
        ] {
            assert_eq!(tokens(text), (words.into(), spellings.into()), "{text}");
        }
    }

    #[test]
    fn tokens_are_bounded_in_length_and_in_all() {
        let (words, _) = tokens(&"ä".repeat(1000));
        assert_eq!(words.len(), MAX_TOKEN_BYTES);
        let long: String = (0..200_000).map(|i| format!("w{i}x ")).collect();
        let indexed = index_words("1f_", &long);
        assert!(indexed.words.len() < MAX_TEXT_BYTES && indexed.count > 50_000, "{}", indexed.count);
        assert!(index_words("1f_", "\0 \u{301}").words.is_empty());
    }

    #[test]
    fn every_token_has_the_prefix_of_its_collection() {
        let prefix = collection_prefix(31);
        assert_eq!(index_words(&prefix, "a b").words, "1f_a 1f_b ");
    }
}
