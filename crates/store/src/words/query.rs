//! The phrases that a query looks for.
//!
//! Chunks with any of the phrases are found; [BM25](crate::SearchMode::Text) ranks them. A query has two operators:
//! `"several words"` in double quotes is one phrase, and `word*` finds all words with this start. Everything else,
//! also a quote without its partner or an asterisk elsewhere, is plain text, so that no query is invalid.
//!
//! - A word is a phrase of one token. A word in `camelCase` is also the phrase of its parts.
//! - A technical form is one phrase of its parts: `10.0.0.1` does not find every text with a 10. A form that is only
//!   words joined by hyphens, apostrophes or a slash is each of its words, and also one phrase, so that texts with the
//!   whole form rank first.
//! - In a script without spaces, a dictionary splits the query into words. The index does not depend on the dictionary.
//! - A Korean word is also searched without its particle.

use icu_segmenter::{WordSegmenter, options::WordBreakInvariantOptions};

use super::{
    index::{bounded, joined_form, name_with_sign, pair_tokens},
    normalize::{fold, normalize},
    scripts::{Class, Script, class},
    units::{Joint, Unit, UnitKind, camel_case_parts, joint, units},
};

/// Maximum number of phrases that are searched for. Further words are ignored.
const MAX_PHRASES: usize = 64;

/// Maximum number of tokens of a phrase. It bounds the work for a query that is a long text without spaces.
const MAX_PHRASE_TOKENS: usize = 64;

/// Maximum bytes of a query whose words are searched for. Words after it are ignored.
const MAX_QUERY_BYTES: usize = 32 * 1024;

/// Maximum bytes of a query that a dictionary splits into words, because a dictionary is slow. The bounds let a query be
/// read on a thread of asynchronous tasks.
const MAX_SEGMENTED_BYTES: usize = 4096;

/// Minimum number of characters of a single word before an asterisk, so that a search does not read half of the index.
const MIN_PREFIX_CHARACTERS: usize = 2;

/// Tokens at consecutive positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phrase {
    /// The tokens, without the prefix of a collection. There is at least one.
    pub(crate) tokens: Vec<String>,
    /// Whether the last token is the start of a token.
    pub(crate) is_prefix: bool,
}

/// Returns the phrases of a query, each once.
pub(crate) fn query_phrases(query: &str) -> Vec<Phrase> {
    let query = normalize(&query[..query.floor_char_boundary(MAX_QUERY_BYTES)]);
    let mut phrases = Phrases { found: Vec::new(), segmentable: MAX_SEGMENTED_BYTES };
    let mut rest: &str = &query;
    while !phrases.is_full()
        && let Some((plain, quoted, after)) = next_quoted(rest)
    {
        phrases.add_text(plain);
        phrases.add(phrase(&units(quoted).0));
        rest = after;
    }
    phrases.add_text(rest);
    phrases.found
}

const OPENING_QUOTES: [char; 4] = ['"', '“', '„', '”'];
const CLOSING_QUOTES: [char; 3] = ['"', '”', '“'];

/// Returns what is before the first quoted phrase of a text, the phrase, and what is after it. A quote inside of a word,
/// as in Hebrew acronyms, does not begin or end a phrase. Beside a letter of a script without spaces, or of Hangul, whose
/// particles follow a quote directly, it does.
fn next_quoted(text: &str) -> Option<(&str, &str, &str)> {
    let is_paired = |c: char| matches!(class(c), Class::Letter(script) if script.is_paired());
    let is_of_word = |c: char| class(c) != Class::Separator && !is_paired(c);
    let before = |text: &str| text.chars().rev().find(|c| class(*c) != Class::Mark);
    let after = |text: &str| text.chars().next();
    let mut opening = text.match_indices(OPENING_QUOTES);
    let (start, sign) = opening.find(|(at, sign)| {
        !before(&text[..*at]).is_some_and(is_of_word)
            || after(&text[at + sign.len()..]).is_some_and(is_paired)
    })?;
    let inner = &text[start + sign.len()..];
    let mut closing = inner.match_indices(CLOSING_QUOTES);
    let (end, sign) = closing.find(|(at, sign)| {
        !after(&inner[at + sign.len()..]).is_some_and(is_of_word)
            || before(&inner[..*at]).is_some_and(is_paired)
    })?;
    Some((&text[..start], &inner[..end], &inner[end + sign.len()..]))
}

/// Returns one phrase of all units.
fn phrase(units: &[Unit<'_>]) -> Phrase {
    let mut phrase = Phrase::default();
    for (position, unit) in units.iter().enumerate() {
        if phrase.tokens.len() >= MAX_PHRASE_TOKENS {
            break;
        }
        let is_last = position + 1 == units.len();
        phrase.is_prefix = false;
        if matches!(unit.kind, UnitKind::Pairs(_)) {
            let characters = unit.characters();
            let mut tokens = pair_tokens(&characters);
            if is_last && characters.len() > 1 {
                // In the text another character may follow, and the last character is in the token before it.
                tokens.pop();
            } else if is_last {
                phrase.is_prefix = true;
            }
            phrase.tokens.extend(tokens);
        } else {
            phrase.tokens.extend(Some(fold(unit.text)).filter(|token| !token.is_empty()));
        }
    }
    if phrase.tokens.len() > MAX_PHRASE_TOKENS {
        phrase.tokens.truncate(MAX_PHRASE_TOKENS);
        phrase.is_prefix = false;
    }
    for token in &mut phrase.tokens {
        token.truncate(bounded(token).len());
    }
    phrase
}

struct Phrases {
    found: Vec<Phrase>,
    /// Bytes that a dictionary may still split.
    segmentable: usize,
}

impl Phrases {
    fn add(&mut self, phrase: Phrase) {
        if !phrase.tokens.is_empty() && !self.is_full() && !self.found.contains(&phrase) {
            self.found.push(phrase);
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= MAX_PHRASES
    }

    fn add_token(&mut self, token: String) {
        self.add(Phrase { tokens: vec![token], is_prefix: false });
    }

    /// Adds the phrases of a text without quotes.
    fn add_text(&mut self, text: &str) {
        let (units, trailing) = units(text);
        let mut start = 0;
        while start < units.len() && !self.is_full() {
            let mut end = start + 1;
            while end < units.len() && joint(&units[end - 1], &units[end]) != Joint::Apart {
                end += 1;
            }
            let after = units.get(end).map_or(trailing, |next| next.gap);
            let is_prefix = has_asterisk(&units[start..end], after, end == units.len());
            self.add_form(&units[start..end], after, units.get(end), is_prefix);
            start = end;
        }
    }

    /// Adds the phrases of units that are joined.
    fn add_form(&mut self, form: &[Unit<'_>], after: &str, next: Option<&Unit<'_>>, is_prefix: bool) {
        if let [unit] = form {
            self.add_unit(unit, after, next, is_prefix);
            return;
        }
        if !is_technical(form) {
            // A single letter or character is searched for as a part of the whole only.
            let is_word = |unit: &Unit<'_>| unit.text.chars().nth(1).is_some();
            for (position, unit) in form.iter().enumerate().filter(|(_, unit)| is_word(unit)) {
                let is_last = position + 1 == form.len();
                self.add_unit(unit, "", None, is_prefix && is_last);
            }
        }
        let mut whole = phrase(form);
        whole.is_prefix |= is_prefix;
        self.add(whole);
        if is_prefix && let [before @ .., first, second] = form {
            self.add_start_of_mixed(before, first, second);
        }
        if let Some(joined) = joined_form(form) {
            self.add(Phrase { tokens: vec![joined], is_prefix });
        }
    }

    /// Adds letters and a number before an asterisk as the start of one token: `ab12*` finds `AB12C3`.
    fn add_start_of_mixed(&mut self, before: &[Unit<'_>], first: &Unit<'_>, second: &Unit<'_>) {
        let is_pair = first.is_letters() != second.is_letters()
            && [first, second].iter().all(|unit| unit.is_letters() || unit.kind == UnitKind::Digits);
        if !is_pair || !second.gap.is_empty() {
            return;
        }
        let mut start = phrase(before);
        // The unit before may be a run without spaces, whose last character is a token of its own in the index.
        if before.last().is_some_and(|unit| matches!(unit.kind, UnitKind::Pairs(_)))
            || start.tokens.len() >= MAX_PHRASE_TOKENS
        {
            start.tokens.clear();
        }
        let token = fold(first.text) + &fold(second.text);
        start.tokens.push(bounded(&token).to_owned());
        self.add(Phrase { is_prefix: true, ..start });
    }

    fn add_unit(&mut self, unit: &Unit<'_>, after: &str, next: Option<&Unit<'_>>, is_prefix: bool) {
        match unit.kind {
            UnitKind::Pairs(Script::Hangul) => self.add_korean_word(unit),
            UnitKind::Pairs(_) => self.add_unspaced_words(unit),
            UnitKind::Letters(_) | UnitKind::Digits | UnitKind::Mixed => {
                if let Some(name) = name_with_sign(unit, after, next) {
                    self.add_token(name);
                    return;
                }
                let one = std::slice::from_ref(unit);
                self.add(Phrase { is_prefix, ..phrase(one) });
                let parts: Vec<String> = camel_case_parts(unit).into_iter().map(fold).collect();
                self.add(Phrase { tokens: parts, is_prefix });
            }
        }
    }

    /// Adds a Korean word, and the word without its particle or ending.
    fn add_korean_word(&mut self, unit: &Unit<'_>) {
        self.add(phrase(std::slice::from_ref(unit)));
        let stem = KOREAN_ENDINGS.iter().find_map(|ending| unit.text.strip_suffix(ending));
        // A stem of one syllable would be found in too many words.
        if let Some(text) = stem.filter(|stem| stem.chars().nth(1).is_some()) {
            self.add(phrase(&[Unit { text, ..*unit }]));
        }
    }

    /// Adds the words of a run in a script without spaces, and the run as a whole.
    fn add_unspaced_words(&mut self, unit: &Unit<'_>) {
        let mut characters = unit.characters();
        let whole = characters.concat();
        let run = Unit { text: &whole, ..*unit };
        let mut end = 0;
        let fits = |character: &&&str| {
            end += character.len();
            end <= self.segmentable
        };
        characters.truncate(characters.iter().take_while(fits).count());
        let text = characters.concat();
        self.segmentable -= text.len();
        // The segmenter is a reference to data of the program.
        let segmenter = WordSegmenter::new_auto(WordBreakInvariantOptions::default());
        let ends: Vec<usize> = segmenter.segment_str(&text).collect();
        let words: Vec<Unit<'_>> = ends
            .windows(2)
            .map(|ends| Unit { text: &text[ends[0]..ends[1]], ..*unit })
            .filter(|word| is_content_word(word))
            .collect();
        if words.is_empty() {
            for pair in characters.windows(2) {
                self.add(phrase(&[Unit { text: &pair.concat(), ..*unit }]));
            }
        }
        for word in words {
            self.add(phrase(&[word]));
        }
        self.add(phrase(&[run]));
    }
}

/// Returns whether an asterisk follows a form directly, and no other word follows the asterisk.
fn has_asterisk(form: &[Unit<'_>], after: &str, is_last: bool) -> bool {
    let Some(unit) = form.last() else { return false };
    let is_long_enough = form.len() > 1 || unit.text.chars().nth(MIN_PREFIX_CHARACTERS - 1).is_some();
    let is_followed = after.starts_with('*') && (is_last || after.len() > 1);
    !matches!(unit.kind, UnitKind::Pairs(_)) && is_long_enough && is_followed
}

/// Returns whether units that are joined are a technical form, and not words of a language.
fn is_technical(form: &[Unit<'_>]) -> bool {
    let has_hard_joint = form.windows(2).any(|pair| joint(&pair[0], &pair[1]) == Joint::Hard);
    let has_number = form.iter().any(|unit| !unit.is_letters() && !matches!(unit.kind, UnitKind::Pairs(_)));
    let is_unspaced = form.iter().any(Unit::is_unspaced);
    let is_path = form.iter().filter(|unit| unit.gap == "/").count() > 1;
    has_hard_joint || is_path || (has_number && !is_unspaced)
}

/// Chinese characters that are words of grammar. They are in most texts.
const CHINESE_FUNCTION_WORDS: &str =
    "的了是在和与及或也就都而着之其把被让向从到为以于吗呢吧啊这那有不我你他她它很们個个這為與";

/// Returns whether a word of a run is searched for by itself. One character is, if it is Chinese and no word of grammar:
/// one character of kana or of a Southeast Asian script is in most texts.
fn is_content_word(word: &Unit<'_>) -> bool {
    let mut characters = word.text.chars();
    let (Some(first), None) = (characters.next(), characters.next()) else {
        return word.characters().len() > 1;
    };
    !('\u{3040}'..='\u{30ff}').contains(&first)
        && class(first) == Class::Letter(Script::Ideographic)
        && !CHINESE_FUNCTION_WORDS.contains(first)
}

/// Particles and endings of Korean words, longer ones first.
const KOREAN_ENDINGS: &[&str] = &[
    "에서부터",
    "으로부터",
    "하려면",
    "합니다",
    "됩니다",
    "입니다",
    "에서는",
    "에게서",
    "으로는",
    "으로써",
    "으로서",
    "까지는",
    "이라는",
    "하는",
    "하기",
    "하고",
    "하여",
    "되는",
    "했다",
    "에서",
    "에게",
    "한테",
    "으로",
    "까지",
    "부터",
    "처럼",
    "보다",
    "마다",
    "이나",
    "이며",
    "이란",
    "들이",
    "들은",
    "들을",
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "의",
    "에",
    "와",
    "과",
    "로",
    "도",
    "만",
    "랑",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes phrases as `one two | three*`.
    fn phrases(query: &str) -> String {
        let written = query_phrases(query)
            .into_iter()
            .map(|phrase| phrase.tokens.join(" ") + if phrase.is_prefix { "*" } else { "" });
        written.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_query_becomes_phrases() {
        let mut failures = Vec::new();
        for (query, expected) in [
            ("Foxes AND \"lazy\" OR (dogs*) don't -- ; '", "foxes | and | lazy | or | dogs* | don | don t"),
            ("*** \" '", ""),
            ("\"a fox\" fox", "a fox | fox"),
            ("“the lazy dog”", "the lazy dog"),
            ("an \"open quote", "an | open | quote"),
            ("pre* f* *x a*b", "pre* | f | x | a | b"),
            ("10.0.0.1", "10 0 0 1"),
            ("v1.2.3-rc1", "v 1 2 3 rc 1"),
            ("jane.doe@example.com", "jane doe example com"),
            ("C:\\Temp\\a.txt", "c temp a txt"),
            ("/usr/local/bin", "usr local bin"),
            ("https://example.com/a?b=1", "https example com a b 1"),
            ("fe80::1", "fe 80 1"),
            ("config.y*", "config y*"),
            ("state-of-the-art", "state | of | the | art | state of the art"),
            ("e-mail", "mail | e mail | email"),
            ("TCP/IP", "tcp | ip | tcp ip"),
            ("C++ C# .NET", "c++ | c# | .net"),
            ("#rust @jane", "rust | jane"),
            ("getUserName", "getusername | get user name"),
            ("get_user_name", "get user name"),
            ("1,000,000", "1 000 000 | 1000000"),
            ("U.S.A.", "u s a | usa"),
            ("ab12*", "ab 12* | ab12*"),
            ("sku-de4*", "sku de 4* | sku de4* | skude*"),
            ("7e*", "7 e* | 7e*"),
            ("如何\"安装\"数据库", "如何 | 安装 | 数据 | 库* | 数据 据库"),
            ("\"数据\"库", "数据 | 库*"),
            ("\"한국\"에서", "한국 | 에서"),
            ("צה\"ל", "צה | ל"),
            ("5\"x7\"", "5 | x 7"),
            ("utf8", "utf 8"),
            ("AB-1234/5", "ab 1234 5"),
            ("猫", "猫*"),
            ("数据", "数据"),
            ("第3章", "第 3 章*"),
            ("데이터베이스를", "데이 이터 터베 베이 이스 스를 | 데이 이터 터베 베이 이스"),
            ("Привет, мир!", "привет | мир"),
        ] {
            let found = phrases(query);
            if found != expected {
                failures.push(format!("{query}: {found} instead of {expected}"));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    #[test]
    fn a_dictionary_splits_queries_without_spaces() {
        let all = phrases("如何配置数据库连接");
        for word in ["如何", "配置", "连接"] {
            assert!(all.split(" | ").any(|phrase| phrase == word), "{word}: {all}");
        }
        let thai = phrases("แมวกินปลา");
        assert!(thai.split(" | ").any(|phrase| phrase == "แม มว"), "{thai}");
    }

    #[test]
    fn a_query_is_bounded() {
        let words: String = (0..1000).map(|i| format!("word{i}x ")).collect();
        assert_eq!(query_phrases(&words).len(), MAX_PHRASES);
        let long = query_phrases(&"数据库".repeat(10_000));
        assert!(
            long.len() <= MAX_PHRASES && long.iter().all(|phrase| phrase.tokens.len() <= MAX_PHRASE_TOKENS)
        );
        for run in ["数据库", "แมวกินปลา ", "数 "] {
            let mut phrases = Phrases { found: Vec::new(), segmentable: MAX_SEGMENTED_BYTES };
            phrases.add_text(&run.repeat(10_000));
            assert!(
                phrases.found.len() <= MAX_PHRASES && phrases.segmentable <= MAX_SEGMENTED_BYTES,
                "{run}"
            );
        }
        assert!(query_phrases(&("a ".repeat(MAX_QUERY_BYTES / 2) + "late")).len() == 1);
        assert!(query_phrases(&"a".repeat(100_000))[0].tokens[0].len() <= 256);
    }

    /// The words of a query are found in its own text: each phrase is a sequence of the indexed tokens.
    #[test]
    fn the_phrases_of_a_text_are_in_its_index() {
        for text in [
            "The quick fox",
            "使用Redis缓存数据",
            "แมวกินปลา",
            "10.0.0.1:80",
            "getUserName",
            "C++17 and C# or ASP.NET",
            "e-mail to jane.doe@example.com",
            "데이터베이스를 설정",
            "हिन्दी में खोज",
            "東京タワーの高さ",
            "1,000,000.50",
        ] {
            let indexed = crate::words::index_words("", text);
            for phrase in query_phrases(text) {
                let contains = |tokens: &str| {
                    let all: Vec<&str> = tokens.split_whitespace().collect();
                    all.windows(phrase.tokens.len()).any(|window| {
                        let last = window.len() - 1;
                        window[..last].iter().zip(&phrase.tokens).all(|(a, b)| a == b)
                            && if phrase.is_prefix {
                                window[last].starts_with(&phrase.tokens[last])
                            } else {
                                window[last] == phrase.tokens[last]
                            }
                    })
                };
                assert!(contains(&indexed.words) || contains(&indexed.spellings), "{text}: {phrase:?}");
            }
        }
    }
}
