//! The reference tokenizer with the model's own limit.
//!
//! A `tokenizer.json` may carry truncation and padding of its own (MiniLM's says 128 for both); they are
//! switched off, and a text is cut here, to the limit that sentence-transformers uses. When only the beginning
//! is kept, only the beginning is tokenized: a megabyte costs no more than a page.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{LoadError, TokenizeError};

/// What to keep of a text that is longer than the model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncationSide {
    /// Its beginning.
    Start,
    /// Its end.
    End,
    /// All of it, or an error.
    All,
}

/// A text as the model reads it. Made by [`Model::tokenize`](crate::Model::tokenize).
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none: a text of nothing, for a tokenizer without special tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether the text was longer.
    pub fn truncated(&self) -> bool {
        self.truncated
    }
}

/// Text to tokens.
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The special tokens before and after every text.
    before: Vec<u32>,
    after: Vec<u32>,
    limit: usize,
    lowercase: bool,
    /// How many ids the weights know.
    rows: usize,
    bare: Option<StaticVocabulary>,
}

/// What a static model makes of texts: no special tokens, and none that is unknown.
struct StaticVocabulary {
    unknown: Option<u32>,
    /// Characters of the vocabulary's median token.
    token_characters: usize,
}

/// What a tokenizer is made from.
pub(crate) struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub(crate) file: &'a Path,
    /// Most tokens of a text.
    pub(crate) limit: usize,
    /// How many ids the weights know.
    pub(crate) rows: usize,
    /// Whether texts are lowercased first, whatever the tokenizer does.
    pub(crate) lowercase: bool,
    /// For a static model: the unknown token, if there is one, which is left out as special tokens are.
    pub(crate) leaves_out: Option<Option<String>>,
}

/// Bytes tokenized at first for each token that may be kept: English has four to five.
const BYTES_PER_TOKEN: usize = 8;
/// Tokens behind the kept ones that must be there before a cut is believed: the last word before it may
/// tokenize differently than in the whole text.
const MARGIN: usize = 16;

impl Tokenizer {
    /// Reads `tokenizer.json`.
    pub(crate) fn load(from: &TokenizerFiles<'_>) -> Result<Self, LoadError> {
        let TokenizerFiles { file, limit, rows, lowercase, ref leaves_out } = *from;
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
        // Special tokens beyond the weights do no harm until a text has one: Gemma's tokenizer has one for images.
        let added = inner.get_added_tokens_decoder();
        let special = |id: &u32| added.get(id).is_some_and(|token| token.special);
        let largest =
            inner.get_vocab(true).into_values().filter(|id| !special(id)).max().unwrap_or(0) as usize;
        if largest >= rows {
            return Err(LoadError::TokenizerMismatch { file: file.to_path_buf(), largest, rows });
        }
        let encode = |specials| encode(&inner, "a", specials && leaves_out.is_none()).map_err(malformed);
        let (bare, whole) = (encode(false)?, encode(true)?);
        let Some(start) = whole.windows(bare.len().max(1)).position(|window| window == bare) else {
            return Err(malformed("its post-processor changes a text's own tokens".into()));
        };
        let (before, after) = (whole[..start].to_vec(), whole[start + bare.len()..].to_vec());
        if before.len() + after.len() >= limit {
            return Err(LoadError::Setting {
                setting: "max_length",
                reason: format!(
                    "{limit} leaves no room beside {} special tokens",
                    before.len() + after.len()
                ),
            });
        }
        let bare = leaves_out.as_ref().map(|unknown| StaticVocabulary {
            unknown: unknown.as_ref().and_then(|token| inner.token_to_id(token)),
            token_characters: median_characters(&inner),
        });
        Ok(Self { inner, before, after, limit, lowercase, rows, bare })
    }

    /// Tokens of a text in all, special ones included.
    pub(crate) fn count(&self, text: &str) -> Result<usize, TokenizeError> {
        Ok(self.content(text)?.len() + self.specials())
    }

    pub(crate) fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError> {
        let room = self.limit - self.specials();
        let cut = self.bare.as_ref().filter(|_| keep == TruncationSide::Start).and_then(|bare| {
            // As the reference, before it counts tokens.
            text.char_indices().nth(self.limit.saturating_mul(bare.token_characters)).map(|(at, _)| at)
        });
        let text = &text[..cut.unwrap_or(text.len())];
        let content = match keep {
            TruncationSide::Start => self.truncate_prefix(text, room)?,
            TruncationSide::End | TruncationSide::All => self.content(text)?,
        };
        let truncated = cut.is_some() || content.len() > room;
        let kept = match keep {
            _ if content.len() <= room => &content[..],
            TruncationSide::Start => &content[..room],
            TruncationSide::End => &content[content.len() - room..],
            TruncationSide::All => {
                return Err(TokenizeError::TooLong {
                    tokens: content.len() + self.specials(),
                    limit: self.limit,
                });
            }
        };
        if let Some(id) = kept.iter().find(|id| **id as usize >= self.rows) {
            let token = self.inner.id_to_token(*id).unwrap_or_default();
            return Err(TokenizeError::Tokenizer(format!("the model has no vector for the token '{token}'")));
        }
        let mut ids = [&self.before[..], kept, &self.after[..]].concat();
        if let Some(StaticVocabulary { unknown: Some(unknown), .. }) = self.bare {
            ids.retain(|id| *id != unknown);
        }
        Ok(Tokens { ids, truncated })
    }

    fn specials(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// All of the text's own tokens.
    fn content(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let text = if self.lowercase { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) };
        encode(&self.inner, &text, false).map_err(TokenizeError::Tokenizer)
    }

    /// The text's own tokens as far as `room` and a margin, or all when there are fewer.
    fn truncate_prefix(&self, text: &str, room: usize) -> Result<Vec<u32>, TokenizeError> {
        let mut bytes = (room + MARGIN) * BYTES_PER_TOKEN;
        while let Some(cut) = cut_before_space(text, bytes) {
            let content = self.content(&text[..cut])?;
            if content.len() >= room + MARGIN {
                return Ok(content);
            }
            bytes = bytes.saturating_mul(4);
        }
        self.content(text)
    }
}

/// A tokenizer from its file. The library panics on some files that are none; those are refused as others are.
fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    match catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Ok(parsed) => parsed.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library panics on it".into()),
    }
}

/// Half of the vocabulary's tokens have no more characters than this.
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

/// Token ids of a text. The library panics on some files that contradict themselves (a template that names a token
/// nobody defined); that is an error like any other.
fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, specials: bool) -> Result<Vec<u32>, String> {
    match catch_unwind(AssertUnwindSafe(|| tokenizer.encode_fast(text, specials))) {
        Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it contradicts itself: the tokenizers library panics on it".into()),
    }
}

/// The first place at or behind `bytes` where a plain white space begins; `None` when none comes before the end.
/// No tokenizer joins what stands before one with what stands behind it. Others are no such border: BERT's drops
/// U+000B, U+0085 and their like as control characters, and the words on both sides grow together.
fn cut_before_space(text: &str, bytes: usize) -> Option<usize> {
    let from = text.ceil_char_boundary(bytes);
    let behind = text.get(from..).filter(|behind| !behind.is_empty())?;
    behind.find([' ', '\t', '\n', '\r']).map(|at| from + at)
}
