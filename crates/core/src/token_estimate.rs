//! How many tokens a text has, estimated without a tokenizer. Quotas reserve tokens by it, and calls to vendors are
//! split and paced by it.

/// Tokens that encoder models add to each text: one at the start and one at the end (`[CLS]` and `[SEP]` of BERT,
/// `<s>` and `</s>` of RoBERTa). [`estimate_tokens`] leaves them out, because vendors do not count them.
pub const SPECIAL_TOKENS: usize = 2;

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

#[cfg(test)]
mod tests {
    use super::*;

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
