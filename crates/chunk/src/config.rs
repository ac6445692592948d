//! The chunking configuration: method, size, overlap and unit. The constructor validates; every value is usable.

use std::str::FromStr;

use crate::Language;

/// How to split a text into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkConfig {
    method: Method,
    size: usize,
    overlap: usize,
    unit: Unit,
    /// The language for `code`; `None` when no grammar is known.
    language: Option<Language>,
}

/// Why a chunking configuration is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkConfigError {
    /// The method does not exist. Holds its name and the known names.
    #[error("method '{0}' is unknown; write one of {1}")]
    UnknownMethod(String, String),
    /// The unit does not exist. Holds its name and the known names.
    #[error("unit '{0}' is unknown; write one of {1}")]
    UnknownUnit(String, String),
    /// The size is 0 or above the maximum.
    #[error("size is {0}; it must be between 1 and {MAX_SIZE}")]
    SizeOutOfRange(usize),
    /// The overlap is not smaller than the size, so chunks would not advance.
    #[error(
        "overlap is {overlap}, but it must be smaller than size, which is {size}; a tenth to a fifth of size is usual"
    )]
    OverlapTooLarge {
        /// The configured overlap.
        overlap: usize,
        /// The configured size.
        size: usize,
    },
    /// The method has a fixed unit, and another one was given.
    #[error("method '{method}' counts in {unit}; leave unit out")]
    FixedUnit {
        /// The method's name.
        method: &'static str,
        /// The method's unit.
        unit: &'static str,
    },
}

/// Maximum size in units. No model accepts a larger input.
const MAX_SIZE: usize = 1_000_000;

/// `recursive`, 256 tokens, 32 of them shared: for every text whose chunking is not configured.
impl Default for ChunkConfig {
    fn default() -> Self {
        const SIZE: usize = 256;
        Self { method: Method::Recursive, size: SIZE, overlap: SIZE / 8, unit: Unit::Tokens, language: None }
    }
}

impl ChunkConfig {
    /// Returns the whole text as one chunk.
    pub const WHOLE: Self =
        Self { method: Method::Whole, size: MAX_SIZE, overlap: 0, unit: Unit::Characters, language: None };

    /// Validates a configuration. Defaults: the method's own unit, else tokens; a size of 256 tokens, 200 words or
    /// 1000 characters; an overlap of an eighth of the size.
    ///
    /// # Errors
    /// The size is out of range, the overlap is not smaller than the size, or the method has another fixed unit.
    pub fn new(
        method: Method,
        size: Option<usize>,
        overlap: Option<usize>,
        unit: Option<Unit>,
    ) -> Result<Self, ChunkConfigError> {
        let fixed = |fixed: Unit| match unit {
            Some(other) if other != fixed => {
                Err(ChunkConfigError::FixedUnit { method: method.as_str(), unit: fixed.as_str() })
            }
            _ => Ok(fixed),
        };
        let unit = match method {
            Method::Whole => return Ok(Self::WHOLE),
            Method::Words => fixed(Unit::Words)?,
            Method::Tokens => fixed(Unit::Tokens)?,
            Method::FixedSize => unit.unwrap_or(Unit::Characters),
            Method::Recursive | Method::Paragraphs | Method::Sentences | Method::Markdown | Method::Code => {
                unit.unwrap_or(Unit::Tokens)
            }
        };
        let default_size = match unit {
            Unit::Characters => 1000,
            Unit::Words => 200,
            Unit::Tokens => 256,
        };
        let size = size.unwrap_or(default_size);
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(ChunkConfigError::SizeOutOfRange(size));
        }
        let overlap = overlap.unwrap_or(size / 8);
        if overlap >= size {
            return Err(ChunkConfigError::OverlapTooLarge { overlap, size });
        }
        Ok(Self { method, size, overlap, unit, language: None })
    }

    /// Reduces a size in tokens to `max_tokens`, the limit of a model: the model would silently truncate a larger
    /// chunk. The overlap becomes at most half of the new size. Sizes in other units stay.
    #[must_use]
    pub(crate) fn clamp_to_model(self, max_tokens: usize) -> Self {
        if self.unit != Unit::Tokens || self.size <= max_tokens {
            return self;
        }
        let size = max_tokens.max(1);
        Self { size, overlap: self.overlap.min(size / 2), ..self }
    }

    /// Sets the language that [`Method::Code`] parses, from the text's content type.
    #[must_use]
    pub fn with_content_type(self, content_type: Option<&str>) -> Self {
        Self { language: content_type.and_then(Language::from_content_type), ..self }
    }

    /// The splitting method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Maximum size of a chunk, in units.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Maximum number of units that a chunk repeats from the previous one.
    pub const fn overlap(&self) -> usize {
        self.overlap
    }

    /// The unit of `size` and `overlap`.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The language that [`Method::Code`] parses.
    pub const fn language(&self) -> Option<Language> {
        self.language
    }
}

/// Where a text is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nowhere. The text is one chunk.
    Whole,
    /// At the largest structure whose parts fit: paragraphs, then lines, sentences, words.
    Recursive,
    /// Between paragraphs. Neighbouring paragraphs share a chunk while they fit.
    Paragraphs,
    /// Between sentences. Neighbouring sentences share a chunk while they fit.
    Sentences,
    /// After every `size` words.
    Words,
    /// After every `size` tokens.
    Tokens,
    /// After every `size` units, regardless of structure.
    FixedSize,
    /// Between Markdown sections, then blocks, then as `recursive`. Each chunk carries its headings.
    Markdown,
    /// Between functions and statements if the language has a known grammar, else as `recursive`.
    Code,
}

/// The unit of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Unicode scalar values.
    Characters,
    /// Words by Unicode's word boundaries (UAX #29), in any script. Other visible text counts as one word for every 64
    /// bytes.
    Words,
    /// Tokens of the model that embeds the chunks.
    Tokens,
}

impl Method {
    /// All values, the default first.
    pub const ALL: [Self; 9] = [
        Self::Recursive,
        Self::Markdown,
        Self::Code,
        Self::Paragraphs,
        Self::Sentences,
        Self::Words,
        Self::Tokens,
        Self::FixedSize,
        Self::Whole,
    ];

    /// The name in the HTTP API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "none",
            Self::Recursive => "recursive",
            Self::Paragraphs => "paragraphs",
            Self::Sentences => "sentences",
            Self::Words => "words",
            Self::Tokens => "tokens",
            Self::FixedSize => "fixed_size",
            Self::Markdown => "markdown",
            Self::Code => "code",
        }
    }
}

impl Unit {
    /// All values, the default first.
    pub const ALL: [Self; 3] = [Self::Tokens, Self::Words, Self::Characters];

    /// The name in the HTTP API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Words => "words",
            Self::Tokens => "tokens",
        }
    }
}

impl FromStr for Method {
    type Err = ChunkConfigError;

    fn from_str(name: &str) -> Result<Self, ChunkConfigError> {
        let known = Self::ALL.into_iter().find(|method| method.as_str() == name);
        known.ok_or_else(|| {
            ChunkConfigError::UnknownMethod(name.into(), Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

impl FromStr for Unit {
    type Err = ChunkConfigError;

    fn from_str(name: &str) -> Result<Self, ChunkConfigError> {
        let name = if name == "chars" { "characters" } else { name };
        let known = Self::ALL.into_iter().find(|unit| unit.as_str() == name);
        known
            .ok_or_else(|| ChunkConfigError::UnknownUnit(name.into(), Self::ALL.map(Self::as_str).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_values_get_the_defaults() {
        let config = ChunkConfig::new(Method::Recursive, None, None, None).unwrap();
        assert_eq!((config.size(), config.overlap(), config.unit()), (256, 32, Unit::Tokens));
        assert_eq!(config, ChunkConfig::default());
        let config = ChunkConfig::new(Method::Words, None, None, None).unwrap();
        assert_eq!((config.size(), config.overlap(), config.unit()), (200, 25, Unit::Words));
        let config = ChunkConfig::new(Method::FixedSize, None, None, None).unwrap();
        assert_eq!((config.size(), config.overlap(), config.unit()), (1000, 125, Unit::Characters));
    }

    #[test]
    fn invalid_configurations_are_rejected() {
        assert_eq!(
            ChunkConfig::new(Method::Words, Some(0), None, None),
            Err(ChunkConfigError::SizeOutOfRange(0))
        );
        assert_eq!(
            ChunkConfig::new(Method::Words, Some(5), Some(5), None),
            Err(ChunkConfigError::OverlapTooLarge { overlap: 5, size: 5 })
        );
        assert!(ChunkConfig::new(Method::Words, None, None, Some(Unit::Tokens)).is_err());
        let unknown = "semantic".parse::<Method>().unwrap_err().to_string();
        assert!(unknown.contains("recursive, markdown"), "{unknown}");
    }

    #[test]
    fn names_parse_to_their_values() {
        for method in Method::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
        }
        for unit in Unit::ALL {
            assert_eq!(unit.as_str().parse(), Ok(unit));
        }
        assert_eq!("chars".parse(), Ok(Unit::Characters));
    }

    #[test]
    fn a_model_with_a_lower_limit_makes_chunks_smaller() {
        let config =
            ChunkConfig::new(Method::Tokens, Some(512), Some(400), None).unwrap().clamp_to_model(254);
        assert_eq!((config.size(), config.overlap()), (254, 127));
    }
}
