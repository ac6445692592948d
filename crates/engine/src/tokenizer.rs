//! The reference tokenizer, with truncation to the model's limit.
//!
//! A `tokenizer.json` may configure truncation and padding (MiniLM's sets both to 128). They are switched off, and
//! texts are truncated here, to the limit that sentence-transformers uses. If only the start of a text is kept, only
//! the start is tokenized, so the cost of a long text is bounded.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{LoadError, TokenizeError};

/// Which side of a text keeps its tokens if the text exceeds the model's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncationSide {
    /// The end is truncated; the start is kept. transformers: `truncation_side = "right"`.
    End,
    /// The start is truncated; the end is kept. transformers: `truncation_side = "left"`.
    Start,
    /// No truncation. A text that exceeds the limit is an error.
    None,
}

/// A tokenized text. Created by [`Model::tokenize`](crate::Model::tokenize).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    truncated: bool,
}

impl Tokens {
    /// Token ids, special tokens included.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens: an empty text, for a tokenizer without special tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether the text was truncated.
    pub fn truncated(&self) -> bool {
        self.truncated
    }
}

/// A tokenizer with a limit.
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The special tokens before and after every text.
    before: Vec<u32>,
    after: Vec<u32>,
    limit: usize,
    lowercase: bool,
    /// Number of token ids that have an embedding.
    rows: usize,
    /// Set for static models.
    static_vocabulary: Option<StaticVocabulary>,
}

/// Tokenization of a static model, which drops special tokens and the unknown token.
struct StaticVocabulary {
    /// Id of the unknown token.
    unknown: Option<u32>,
    /// Median length of the vocabulary's tokens, in characters.
    median_characters: usize,
}

/// The inputs of [`Tokenizer::load`].
pub(crate) struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub(crate) file: &'a Path,
    /// Maximum tokens of a text.
    pub(crate) limit: usize,
    /// Number of token ids that have an embedding.
    pub(crate) rows: usize,
    /// Whether texts are lowercased before tokenization.
    pub(crate) lowercase: bool,
    /// Set for a static model: its unknown token, if it has one.
    pub(crate) static_unknown: Option<Option<String>>,
}

/// Bytes of the first prefix that is tokenized, per token that can be kept. English text has four to five.
const BYTES_PER_TOKEN: usize = 8;
/// Tokens after the kept ones that a tokenized prefix must have. The last word of a prefix may tokenize differently
/// than in the whole text, so the last tokens are not reliable.
const MARGIN_TOKENS: usize = 16;

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing, malformed or of another model, or the limit leaves no space for a text.
    pub(crate) fn load(files: &TokenizerFiles<'_>) -> Result<Self, LoadError> {
        let TokenizerFiles { file, limit, rows, lowercase, ref static_unknown } = *files;
        let malformed = |reason: String| LoadError::Malformed {
            file: file.to_path_buf(),
            expected: "a tokenizer",
            reason,
        };
        let bytes =
            std::fs::read(file).map_err(|source| LoadError::Io { file: file.to_path_buf(), source })?;
        let mut inner = parse(&bytes).map_err(malformed)?;
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        inner.with_padding(None);
        // A special token without an embedding is accepted here; only a text that contains it is an error. Gemma's
        // tokenizer has one for images.
        let added = inner.get_added_tokens_decoder();
        let special = |id: &u32| added.get(id).is_some_and(|token| token.special);
        let largest =
            inner.get_vocab(true).into_values().filter(|id| !special(id)).max().unwrap_or(0) as usize;
        if largest >= rows {
            return Err(LoadError::TokenizerMismatch { file: file.to_path_buf(), largest, rows });
        }
        let encode = |specials| encode(&inner, "a", specials && static_unknown.is_none()).map_err(malformed);
        let (plain, with_specials) = (encode(false)?, encode(true)?);
        let Some(start) = with_specials.windows(plain.len().max(1)).position(|window| window == plain) else {
            return Err(malformed("its post-processor changes a text's own tokens".into()));
        };
        let (before, after) =
            (with_specials[..start].to_vec(), with_specials[start + plain.len()..].to_vec());
        if before.len() + after.len() >= limit {
            return Err(LoadError::Setting {
                setting: "max_length",
                reason: format!(
                    "{limit} leaves no space for text beside {} special tokens",
                    before.len() + after.len()
                ),
            });
        }
        let static_vocabulary = static_unknown.as_ref().map(|unknown| StaticVocabulary {
            unknown: unknown.as_ref().and_then(|token| inner.token_to_id(token)),
            median_characters: median_characters(&inner),
        });
        Ok(Self { inner, before, after, limit, lowercase, rows, static_vocabulary })
    }

    /// Number of tokens of a text before truncation, special tokens included.
    pub(crate) fn count(&self, text: &str) -> Result<usize, TokenizeError> {
        Ok(self.content(text)?.len() + self.special_count())
    }

    /// Tokenizes a text and truncates it to the limit.
    pub(crate) fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError> {
        let max_content = self.limit - self.special_count();
        let vocabulary = self.static_vocabulary.as_ref().filter(|_| truncation == TruncationSide::End);
        // The reference truncates texts of static models by characters before it tokenizes them.
        let prefix_end = vocabulary.and_then(|vocabulary| {
            let characters = self.limit.saturating_mul(vocabulary.median_characters);
            text.char_indices().nth(characters).map(|(offset, _)| offset)
        });
        let text = &text[..prefix_end.unwrap_or(text.len())];
        let content = match truncation {
            TruncationSide::End => self.truncate_prefix(text, max_content)?,
            TruncationSide::Start | TruncationSide::None => self.content(text)?,
        };
        let truncated = prefix_end.is_some() || content.len() > max_content;
        let kept = match truncation {
            _ if content.len() <= max_content => &content[..],
            TruncationSide::End => &content[..max_content],
            TruncationSide::Start => &content[content.len() - max_content..],
            TruncationSide::None => {
                return Err(TokenizeError::TooLong {
                    tokens: content.len() + self.special_count(),
                    limit: self.limit,
                });
            }
        };
        if let Some(id) = kept.iter().find(|id| **id as usize >= self.rows) {
            let token = self.inner.id_to_token(*id).unwrap_or_default();
            return Err(TokenizeError::Tokenizer(format!("the model has no vector for the token '{token}'")));
        }
        let mut ids = [&self.before[..], kept, &self.after[..]].concat();
        if let Some(StaticVocabulary { unknown: Some(unknown), .. }) = self.static_vocabulary {
            ids.retain(|id| *id != unknown);
        }
        Ok(Tokens { ids, truncated })
    }

    /// Number of special tokens around a text.
    fn special_count(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// The tokens of a text without special tokens.
    fn content(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let text = if self.lowercase { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) };
        encode(&self.inner, &text, false).map_err(TokenizeError::Tokenizer)
    }

    /// The first tokens of a text: at least `max_content` plus a margin, or all tokens if there are fewer. Tokenizes
    /// only as much of the text as necessary.
    fn truncate_prefix(&self, text: &str, max_content: usize) -> Result<Vec<u32>, TokenizeError> {
        let mut bytes = (max_content + MARGIN_TOKENS) * BYTES_PER_TOKEN;
        while let Some(end) = next_space(text, bytes) {
            let content = self.content(&text[..end])?;
            if content.len() >= max_content + MARGIN_TOKENS {
                return Ok(content);
            }
            bytes = bytes.saturating_mul(4);
        }
        self.content(text)
    }
}

/// Parses a tokenizer file. The library panics on some malformed files; the panic becomes an error.
fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    match catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Ok(parsed) => parsed.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library panicked".into()),
    }
}

/// Median length of the vocabulary's tokens, in characters.
fn median_characters(tokenizer: &tokenizers::Tokenizer) -> usize {
    let mut lengths: Vec<usize> =
        tokenizer.get_vocab(true).keys().map(|token| token.chars().count()).collect();
    lengths.sort_unstable();
    let middle = lengths.len() / 2;
    match lengths.len() {
        0 => 1,
        odd if odd % 2 == 1 => lengths[middle],
        _ => usize::midpoint(lengths[middle - 1], lengths[middle]),
    }
}

/// Token ids of a text. The library panics on some files that contradict themselves, such as a template with an
/// undefined token; the panic becomes an error.
fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, specials: bool) -> Result<Vec<u32>, String> {
    match catch_unwind(AssertUnwindSafe(|| tokenizer.encode_fast(text, specials))) {
        Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizers library panicked; the tokenizer file contradicts itself".into()),
    }
}

/// Byte offset of the first space, tab or line break at or after `bytes`, or `None`. A tokenizer never joins text
/// across these characters. It may join text across other white space: BERT's drops U+000B, U+0085 and similar
/// characters as control characters, and the words on both sides become one.
fn next_space(text: &str, bytes: usize) -> Option<usize> {
    let start = text.ceil_char_boundary(bytes);
    let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
    rest.find([' ', '\t', '\n', '\r']).map(|offset| start + offset)
}
