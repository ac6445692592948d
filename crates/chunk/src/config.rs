//! How to cut: a method, a size, an overlap, and what they are counted in. A rule that exists can be followed.

use std::str::FromStr;

use crate::Language;

/// How to cut a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkConfig {
    method: Method,
    size: usize,
    overlap: usize,
    unit: Unit,
    /// What `code` reads; `None` is a language of no known grammar.
    language: Option<Language>,
}

/// A rule that nobody could follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a method; and those there are.
    #[error("method '{0}' is unknown; known are {1}")]
    Method(String, String),
    /// Not a unit; and those there are.
    #[error("unit '{0}' is unknown; known are {1}")]
    Unit(String, String),
    /// A size of zero, or one beyond reason.
    #[error("size is {0}; it must be between 1 and {MAX_SIZE}")]
    Size(usize),
    /// Chunks that would never advance.
    #[error(
        "overlap is {overlap}, which is not smaller than size, {size}; a tenth to a fifth of size is usual"
    )]
    Overlap {
        /// The overlap.
        overlap: usize,
        /// The size.
        size: usize,
    },
    /// Words counted in tokens, or tokens in words.
    #[error("method '{method}' counts in {due}; leave unit out")]
    UnitOfMethod {
        /// The method's name.
        method: &'static str,
        /// Its unit.
        due: &'static str,
    },
}

/// Larger chunks are a mistake: no model reads them.
const MAX_SIZE: usize = 1_000_000;

impl ChunkConfig {
    /// The text as one chunk.
    pub const WHOLE: Self =
        Self { method: Method::Whole, size: MAX_SIZE, overlap: 0, unit: Unit::Characters, language: None };

    /// A rule; what is absent gets the usual value: tokens, or the method's own unit; 256 tokens, 200 words or
    /// 1000 characters; an overlap of an eighth.
    pub fn new(
        method: Method,
        size: Option<usize>,
        overlap: Option<usize>,
        unit: Option<Unit>,
    ) -> Result<Self, RuleError> {
        let only = |due: Unit| match unit {
            Some(other) if other != due => {
                Err(RuleError::UnitOfMethod { method: method.as_str(), due: due.as_str() })
            }
            _ => Ok(due),
        };
        let unit = match method {
            Method::Whole => return Ok(Self::WHOLE),
            Method::Words => only(Unit::Words)?,
            Method::Tokens => only(Unit::Tokens)?,
            Method::FixedSize => unit.unwrap_or(Unit::Characters),
            Method::Recursive | Method::Paragraphs | Method::Sentences | Method::Markdown | Method::Code => {
                unit.unwrap_or(Unit::Tokens)
            }
        };
        let usual = match unit {
            Unit::Characters => 1000,
            Unit::Words => 200,
            Unit::Tokens => 256,
        };
        let size = size.unwrap_or(usual);
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(RuleError::Size(size));
        }
        let overlap = overlap.unwrap_or(size / 8);
        if overlap >= size {
            return Err(RuleError::Overlap { overlap, size });
        }
        Ok(Self { method, size, overlap, unit, language: None })
    }

    /// The same rule for a model that reads `most` tokens: a larger chunk would be cut by the model, unseen.
    #[must_use]
    pub fn clamp_to_model(self, most: usize) -> Self {
        if self.unit != Unit::Tokens || self.size <= most {
            return self;
        }
        let size = most.max(1);
        Self { size, overlap: self.overlap.min(size / 2), ..self }
    }

    /// The same rule for a text of this content type: `code` reads its language.
    #[must_use]
    pub fn with_content_type(self, content_type: Option<&str>) -> Self {
        Self { language: content_type.and_then(Language::of), ..self }
    }

    /// Where to cut.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The largest chunk, in units.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// How many units of a chunk stand in the next one again, at most.
    pub const fn overlap(&self) -> usize {
        self.overlap
    }

    /// What sizes are counted in.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// What `code` reads.
    pub const fn language(&self) -> Option<Language> {
        self.language
    }
}

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nowhere: the text is one chunk.
    Whole,
    /// At the largest structure that fits: paragraphs, then lines, sentences, words.
    Recursive,
    /// Between paragraphs; several share a chunk while they fit.
    Paragraphs,
    /// Between sentences; several share a chunk while they fit.
    Sentences,
    /// After every so many words.
    Words,
    /// After every so many tokens.
    Tokens,
    /// After every so many units, whatever stands there.
    FixedSize,
    /// Between Markdown's sections, then its blocks, then as `recursive`; each chunk knows its headings.
    Markdown,
    /// Between functions and statements of a language whose grammar is known, else as `recursive`.
    Code,
}

/// What sizes are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Unicode scalar values.
    Characters,
    /// Words, as Unicode finds them in any script.
    Words,
    /// Tokens of the model that will read the chunks.
    Tokens,
}

impl Method {
    /// All of them, the usual one first.
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

    /// The name in the API.
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
    /// All of them, the usual one first.
    pub const ALL: [Self; 3] = [Self::Tokens, Self::Words, Self::Characters];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Words => "words",
            Self::Tokens => "tokens",
        }
    }
}

impl FromStr for Method {
    type Err = RuleError;

    fn from_str(name: &str) -> Result<Self, RuleError> {
        let known = Self::ALL.into_iter().find(|method| method.as_str() == name);
        known.ok_or_else(|| RuleError::Method(name.into(), Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl FromStr for Unit {
    type Err = RuleError;

    fn from_str(name: &str) -> Result<Self, RuleError> {
        let name = if name == "chars" { "characters" } else { name };
        let known = Self::ALL.into_iter().find(|unit| unit.as_str() == name);
        known.ok_or_else(|| RuleError::Unit(name.into(), Self::ALL.map(Self::as_str).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_gets_the_usual_value() {
        let rule = ChunkConfig::new(Method::Recursive, None, None, None).unwrap();
        assert_eq!((rule.size(), rule.overlap(), rule.unit()), (256, 32, Unit::Tokens));
        let rule = ChunkConfig::new(Method::Words, None, None, None).unwrap();
        assert_eq!((rule.size(), rule.overlap(), rule.unit()), (200, 25, Unit::Words));
        let rule = ChunkConfig::new(Method::FixedSize, None, None, None).unwrap();
        assert_eq!((rule.size(), rule.overlap(), rule.unit()), (1000, 125, Unit::Characters));
    }

    #[test]
    fn a_rule_that_nobody_could_follow_is_refused() {
        assert_eq!(ChunkConfig::new(Method::Words, Some(0), None, None), Err(RuleError::Size(0)));
        assert_eq!(
            ChunkConfig::new(Method::Words, Some(5), Some(5), None),
            Err(RuleError::Overlap { overlap: 5, size: 5 })
        );
        assert!(ChunkConfig::new(Method::Words, None, None, Some(Unit::Tokens)).is_err());
        let unknown = "semantic".parse::<Method>().unwrap_err().to_string();
        assert!(unknown.contains("recursive, markdown"), "{unknown}");
    }

    #[test]
    fn names_are_read_back() {
        for method in Method::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
        }
        for unit in Unit::ALL {
            assert_eq!(unit.as_str().parse(), Ok(unit));
        }
        assert_eq!("chars".parse(), Ok(Unit::Characters));
    }

    #[test]
    fn a_model_that_reads_less_makes_chunks_smaller() {
        let rule = ChunkConfig::new(Method::Tokens, Some(512), Some(400), None).unwrap().clamp_to_model(254);
        assert_eq!((rule.size(), rule.overlap()), (254, 127));
    }
}
