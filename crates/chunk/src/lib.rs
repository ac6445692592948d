#![doc = include_str!("../README.md")]

mod boundaries;
mod code;
mod config;
mod language;
mod limits;
mod markdown;
mod offsets;
mod pieces;
mod positions;
mod progress;
mod recount;
mod split;
mod words;

use std::ops::Range;

pub use config::{ChunkConfig, ChunkConfigError, Method, Unit};
pub use language::Language;
pub use offsets::UnitOffsets;
pub use progress::STEPS_PER_CHECK;

use limits::{Limit, Limits};
use progress::Progress;

/// A part of a text with its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextChunk<'t> {
    /// The part without surrounding white space. Never blank.
    pub text: &'t str,
    /// Byte offsets in the text.
    pub bytes: Range<usize>,
    /// Character offsets in the text.
    pub characters: Range<usize>,
    /// Headings of the sections that contain the chunk's first byte, outermost first. Only [`Method::Markdown`]
    /// fills this field. Of more than six the innermost are kept, and a heading is shortened to 512 bytes.
    pub headings: Vec<String>,
}

/// How the model that reads the chunks counts tokens.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// Returns the number of tokens of a piece of text, without special tokens. It is called once per distinct word, in
    /// pieces of at most 72 bytes, and once per chunk.
    pub count: &'a dyn Fn(&str) -> usize,
    /// Maximum tokens of a chunk: the model does not read more. `None` when the maximum is unknown.
    pub max: Option<usize>,
}

/// Why a text has no chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The caller does not need the chunks any more.
    #[error("splitting the text was stopped")]
    Stopped,
    /// The text must not be split, and the model does not read it whole.
    #[error("the text has {tokens} tokens, but the model reads at most {max}")]
    TooLong {
        /// Tokens of the text, without special tokens.
        tokens: usize,
        /// Maximum tokens that the model reads, without special tokens.
        max: usize,
    },
}

/// Splits `text` as `config` demands. No chunk exceeds the configured size or the maximum of `tokens`, except for a
/// single character that does. A byte order mark at the start belongs to no chunk.
///
/// The time is linear in the text and its chunks. `stop` is called after every [`STEPS_PER_CHECK`] steps.
///
/// # Errors
/// `stop` returns true, or the text exceeds the maximum of `tokens` and the method is [`Method::Whole`].
pub fn chunk<'t>(
    text: &'t str,
    config: &ChunkConfig,
    tokens: Tokens<'_>,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<TextChunk<'t>>, ChunkError> {
    let progress = Progress::new(stop);
    progress.check()?;
    let content = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut positions = positions::Positions::new(text, text.len() - content.len());
    if config.method() == Method::Whole {
        check_whole(content, tokens, &progress)?;
        return positions.chunks(std::iter::once(0..content.len()), &progress);
    }
    let config = tokens.max.map_or(*config, |max| config.clamp_to_model(max));
    let size = match config.unit() {
        Unit::Characters => UnitOffsets::of_characters(content, &progress)?,
        Unit::Words => UnitOffsets::of_words(content, &progress)?,
        Unit::Tokens => UnitOffsets::of_tokens(content, tokens.count, &progress)?,
    };
    let model = match tokens.max.filter(|_| config.unit() != Unit::Tokens) {
        Some(max) => Some((UnitOffsets::of_tokens(content, tokens.count, &progress)?, max.max(1))),
        None => None,
    };
    let limits = Limits {
        size: Limit { offsets: &size, max: config.size(), overlap: config.overlap() },
        // Half of a chunk, so that the next chunk has something new.
        model: model.as_ref().map(|(offsets, max)| Limit { offsets, max: *max, overlap: max / 2 }),
    };
    let mut markdown = match config.method() {
        Method::Markdown => Some(markdown::Structure::parse(content, &progress)?),
        _ => None,
    };
    let syntax = match (config.method(), config.language()) {
        (Method::Code, Some(language)) => code::structure(content, language, &progress)?,
        _ => None,
    };
    let ranges = match (config.method(), &mut markdown, syntax) {
        (Method::Paragraphs, ..) => split::paragraphs(content, &limits, &progress)?,
        (Method::Sentences, ..) => split::sentences(content, &limits, &progress)?,
        (Method::Words | Method::Tokens | Method::FixedSize, ..) => {
            split::fixed_windows(content, &limits, &progress)?
        }
        (_, Some(markdown), _) => {
            boundaries::split(content, std::mem::take(&mut markdown.boundaries), &limits, &progress)?
        }
        (_, _, Some(syntax)) => boundaries::split(content, syntax, &limits, &progress)?,
        _ => split::recursive(content, &limits, &progress)?,
    };
    let max_tokens = if config.unit() == Unit::Tokens { Some(config.size()) } else { tokens.max };
    let ranges = match max_tokens {
        Some(max) => recount::divide_oversized(content, ranges, tokens.count, max, &progress)?,
        None => ranges,
    };
    let mut chunks = positions.chunks(ranges.into_iter(), &progress)?;
    if let Some(markdown) = &markdown {
        let shift = text.len() - content.len();
        let paths = markdown.paths_at(chunks.iter().map(|chunk| chunk.bytes.start - shift), &progress)?;
        chunks.iter_mut().zip(paths).for_each(|(chunk, path)| chunk.headings = path);
    }
    Ok(chunks)
}

/// Written by some editors before a text in UTF-8.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// Checks that the model reads the whole text.
fn check_whole(text: &str, tokens: Tokens<'_>, progress: &Progress<'_>) -> Result<(), ChunkError> {
    let Some(max) = tokens.max else { return Ok(()) };
    let text = text.trim();
    let pieces = UnitOffsets::of_tokens(text, tokens.count, progress)?.count();
    // The sum over pieces differs a little from the tokens of the whole text. A text that is much too long is not counted
    // as a whole, because that cannot be stopped.
    let tokens = if pieces > max.saturating_mul(2) { pieces } else { (tokens.count)(text) };
    if tokens > max { Err(ChunkError::TooLong { tokens, max }) } else { Ok(()) }
}
