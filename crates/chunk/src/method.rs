//! The words of a rule: where to cut, and what sizes are counted in.

use std::str::FromStr;

use crate::RuleError;

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
