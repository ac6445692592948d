//! How many tokens a text has, estimated without a tokenizer. [`estimate_tokens`] is the expected number: quotas reserve
//! tokens by it, and calls to vendors are split and paced by it. [`conservative_token_estimate`] is a bound: documents for
//! models without a known tokenizer are split by it.

/// Tokens that encoder models add to each text: one at the start and one at the end (`[CLS]` and `[SEP]` of BERT,
/// `<s>` and `</s>` of RoBERTa). [`estimate_tokens`] leaves them out, because vendors do not count them.
pub const SPECIAL_TOKENS: usize = 2;

/// How far below the real number of tokens the conservative estimate can be, as a factor. Text that fits a limit by this
/// margin fits it for every tokenizer that was measured (a test compares with OpenAI's).
pub const ESTIMATE_MARGIN: usize = 2;

/// Letters of a natural word per token. OpenAI's rule of thumb for English: "1 token ~= 4 chars" (OpenAI Help Center,
/// "What are tokens and how to count them?").
const LETTERS_PER_TOKEN: usize = 4;

/// Letters or digits per token of text that is no natural word, such as base64 or an identifier.
const CODE_LETTERS_PER_TOKEN: usize = 2;

/// Maximum length of a natural word in one of the alphabets.
const MAX_WORD_LETTERS: usize = 16;

/// The estimated number of tokens in a text, without special tokens; at least 1.
///
/// Four ASCII characters count as one token, every other character counts as one token. The first half is OpenAI's
/// rule of thumb for English ("1 token ~= 4 chars", OpenAI Help Center, "What are tokens and how to count them?").
/// The second half makes the estimate conservative for other scripts, where tokenizers make up to one token of a
/// character. The result is never below a quarter of the text's bytes, the number by which OpenAI checks its limit
/// on the tokens of one request: an ASCII character has one byte, any other has at most four.
///
/// ```
/// # use embeddery_core::estimate_tokens;
/// assert_eq!(estimate_tokens("hello world"), 3);
/// assert_eq!(estimate_tokens("你好"), 2);
/// ```
pub fn estimate_tokens(text: &str) -> usize {
    // Counting bytes is much faster than decoding characters. The first byte of a character of several bytes is 0xC0
    // or more, the others are below.
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let other = text.bytes().filter(|byte| *byte >= 0xC0).count();
    (ascii.div_ceil(4) + other).max(1)
}

/// A conservative estimate of the tokens in a text, without special tokens; at least 1. Documents are split by it, so an
/// estimate that is too high is better than one that is too low. [`estimate_tokens`] is the expected number.
///
/// The estimate depends on the script:
/// - an ASCII word has one token for four letters; one token for two letters if it is no natural word (long, or with
///   capitals inside), and one token for two digits;
/// - a letter of an alphabet beyond ASCII (two bytes in UTF-8) has one token;
/// - any other character beyond ASCII has one token for two of its bytes: a byte-level tokenizer makes at most one token
///   of a byte;
/// - a punctuation mark or symbol has one token;
/// - a single space belongs to the word after it, other white space has a token for each line and for four characters.
///
/// ```
/// # use embeddery_core::conservative_token_estimate;
/// assert_eq!(conservative_token_estimate("hello world"), 4);
/// assert_eq!(conservative_token_estimate("你好"), 3);
/// ```
pub fn conservative_token_estimate(text: &str) -> usize {
    let mut estimate = Estimate::default();
    text.chars().for_each(|character| estimate.add(character));
    estimate.end_run();
    estimate.tokens.max(1)
}

/// The runs of a text as they are read.
#[derive(Default)]
struct Estimate {
    tokens: usize,
    run: Run,
    /// Characters of the run.
    length: usize,
    /// Line breaks of a run of white space; capitals of a word after its first letter.
    marks: usize,
    /// Bytes of characters beyond ASCII that are not counted yet, with two for a token.
    half_tokens: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Run {
    #[default]
    None,
    Space,
    Letters,
    Digits,
}

impl Estimate {
    fn add(&mut self, character: char) {
        let run = match character {
            ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' => Run::Space,
            'a'..='z' | 'A'..='Z' => Run::Letters,
            '0'..='9' => Run::Digits,
            _ => Run::None,
        };
        if run != self.run {
            self.end_run();
            self.run = run;
        }
        match run {
            Run::None if character.is_ascii() => self.tokens += 1,
            Run::None => self.half_tokens += character.len_utf8(),
            Run::Space => {
                self.length += 1;
                self.marks += usize::from(character == '\n');
            }
            Run::Letters => {
                self.marks += usize::from(character.is_ascii_uppercase() && self.length > 0);
                self.length += 1;
            }
            Run::Digits => self.length += 1,
        }
    }

    fn end_run(&mut self) {
        let length = std::mem::take(&mut self.length);
        let marks = std::mem::take(&mut self.marks);
        self.tokens += match self.run {
            Run::None => std::mem::take(&mut self.half_tokens).div_ceil(2),
            Run::Space => marks.max((length - 1).div_ceil(4)),
            Run::Letters if marks == 0 && length <= MAX_WORD_LETTERS => length.div_ceil(LETTERS_PER_TOKEN),
            Run::Letters | Run::Digits => length.div_ceil(CODE_LETTERS_PER_TOKEN),
        };
    }
}

/// Counts the tokens of documents as one model does.
pub trait TokenCounter: Send + Sync {
    /// The number of tokens of a text, without the tokens that the model adds to every document.
    fn count(&self, text: &str) -> usize;

    /// The number of tokens that the model adds to every document: special tokens and its prompt.
    fn added_tokens(&self) -> usize;

    /// Whether the model's own tokenizer counts.
    fn is_exact(&self) -> bool;
}

/// Estimates the tokens of documents for a model whose tokenizer is not known.
#[derive(Clone, Copy, Debug)]
pub struct EstimatedTokens {
    /// Tokens that the model adds to every document.
    pub added_tokens: usize,
}

impl Default for EstimatedTokens {
    fn default() -> Self {
        Self { added_tokens: SPECIAL_TOKENS }
    }
}

impl TokenCounter for EstimatedTokens {
    fn count(&self, text: &str) -> usize {
        conservative_token_estimate(text)
    }

    fn added_tokens(&self) -> usize {
        self.added_tokens
    }

    fn is_exact(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_text_has_its_own_rule() {
        for (text, tokens) in [
            ("", 1),
            ("abcd", 1),
            ("abcde", 2),
            ("hello world", 4),
            ("a b c", 3),
            ("getElementById", 7),
            ("2026-12-01", 2 + 1 + 1 + 1 + 1),
            ("| 1 | 2 |", 5),
            ("-----", 5),
            ("a\nb\n\n\nc", 3 + 1 + 3),
            ("Grüße", 1 + 2 + 1),
            ("привет", 6),
            ("日本語", 5),
            ("😀😀", 4),
        ] {
            assert_eq!(conservative_token_estimate(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn ascii_counts_by_four_and_other_characters_count_alone() {
        assert_eq!(estimate_tokens(""), 1);
        assert_eq!(estimate_tokens("abcd"), 1);
        assert_eq!(estimate_tokens("abcde"), 2);
        for text in ["Grüße", "日本語のテキスト", "😀😀", "a\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10ffff}"]
        {
            let ascii = text.chars().filter(char::is_ascii).count();
            let expected = ascii.div_ceil(4) + text.chars().count() - ascii;
            assert_eq!(estimate_tokens(text), expected, "{text}");
            assert!(expected * 4 >= text.len(), "{text}");
        }
    }
}
