//! Counts the tokens of documents for vendors' models, with the vendor's vocabulary where it is known.

use std::sync::Arc;

use embeddery_core::{EstimatedTokens, SPECIAL_TOKENS, TokenCounter, conservative_token_estimate};
use serde::Deserialize;
use tiktoken_rs::CoreBPE;

/// A tokenizer whose vocabulary is in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VendorTokenizer {
    /// The tokenizer of OpenAI's embedding models.
    Cl100kBase,
}

/// Maximum bytes that are tokenized at once. The expression that divides a text into words needs quadratic time for some
/// long runs, and fails for others.
const MAX_BLOCK_BYTES: usize = 4096;

/// Counts with a vocabulary of byte pairs.
struct BytePairs {
    vocabulary: &'static CoreBPE,
    added_tokens: usize,
}

impl TokenCounter for BytePairs {
    fn count(&self, text: &str) -> usize {
        blocks(text).map(|block| self.vocabulary.count_ordinary(block)).sum()
    }

    fn added_tokens(&self) -> usize {
        self.added_tokens
    }

    fn is_exact(&self) -> bool {
        true
    }
}

/// The counter of a vendor's model. `added` is the text that is put before every document. Blocks for about a second when
/// a vocabulary is used for the first time.
pub(crate) fn token_counter(tokenizer: Option<VendorTokenizer>, added: &str) -> Arc<dyn TokenCounter> {
    match tokenizer {
        Some(VendorTokenizer::Cl100kBase) => {
            let vocabulary = tiktoken_rs::cl100k_base_singleton();
            let counter = BytePairs { vocabulary, added_tokens: 0 };
            Arc::new(BytePairs { added_tokens: counter.count(added), ..counter })
        }
        None => {
            let added = if added.is_empty() { 0 } else { conservative_token_estimate(added) };
            Arc::new(EstimatedTokens { added_tokens: SPECIAL_TOKENS + added })
        }
    }
}

/// Divides a text into parts of at most [`MAX_BLOCK_BYTES`], before a space if possible: no token has text before it
/// and the space in front of another word.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= MAX_BLOCK_BYTES {
            rest.len()
        } else {
            let max = rest.floor_char_boundary(MAX_BLOCK_BYTES);
            // Before the space of the last word that begins in the block.
            let space = rest[..max].rfind(' ').filter(|&space| space > max / 2);
            space.unwrap_or(max)
        };
        let (block, after) = rest.split_at(end);
        rest = after;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_change_the_count_by_more_than_a_token_each() {
        let vocabulary = tiktoken_rs::cl100k_base_singleton();
        let counter = token_counter(Some(VendorTokenizer::Cl100kBase), "");
        let words = "The quick brown fox, however, jumps over 1234 lazy dogs.\n".repeat(500);
        assert_eq!(counter.count(&words), vocabulary.count_ordinary(&words));
        let unspaced = "狐狸跳过懒狗".repeat(2000);
        let (counted, exact) = (counter.count(&unspaced), vocabulary.count_ordinary(&unspaced));
        assert!(counted.abs_diff(exact) <= unspaced.len() / MAX_BLOCK_BYTES + 1, "{counted} {exact}");
        assert!(counter.is_exact() && counter.added_tokens() == 0);
    }

    #[test]
    fn text_that_the_expression_cannot_divide_is_counted() {
        let counter = token_counter(Some(VendorTokenizer::Cl100kBase), "passage: ");
        for text in [" ".repeat(1_000_000) + "b", "\n".repeat(900_000) + "b", "x".repeat(900_000)] {
            assert!(counter.count(&text) > 1);
        }
        assert!(counter.added_tokens() > 0);
    }

    #[test]
    fn a_model_without_a_known_tokenizer_has_an_estimate() {
        let counter = token_counter(None, "");
        assert_eq!((counter.count("hello world"), counter.added_tokens(), counter.is_exact()), (4, 2, false));
        assert_eq!(token_counter(None, "passage: ").added_tokens(), 2 + 3);
    }
}
