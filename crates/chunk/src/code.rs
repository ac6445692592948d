//! The structure of program code: the nodes of its syntax tree.

use std::ops::ControlFlow;

use tree_sitter::{ParseOptions, ParseState, Parser, Tree};

use crate::{
    ChunkError, Language,
    boundaries::{Boundary, Level, STRUCTURE},
    progress::Progress,
};

/// Operations of the parser between two calls of its progress callback (tree-sitter's parser.c).
const OPERATIONS_PER_CALLBACK: usize = 100;
/// Maximum operations of the parser for a byte of text. Code needs a few; text that is no code can need many.
const MAX_OPERATIONS_PER_BYTE: usize = 64;
/// Maximum operations for any text, so that short texts have enough.
const MIN_OPERATIONS: usize = 1_000_000;

/// The nodes of the syntax tree of `text`: the less nested a node is, the stronger are its ends. `None` when the text
/// takes the parser too long.
pub(crate) fn structure(
    text: &str,
    language: Language,
    progress: &Progress<'_>,
) -> Result<Option<Vec<Boundary>>, ChunkError> {
    let Some(tree) = parse(text, language, progress)? else { return Ok(None) };
    let mut cursor = tree.walk();
    let mut boundaries = Vec::new();
    let mut depth: Level = 0;
    loop {
        progress.step()?;
        if cursor.goto_first_child() {
            depth += 1;
        } else {
            while !cursor.goto_next_sibling() {
                progress.step()?;
                if !cursor.goto_parent() {
                    return Ok(Some(boundaries));
                }
                depth -= 1;
            }
        }
        let level = Level::MAX.saturating_sub(depth).max(STRUCTURE);
        let range = cursor.node().byte_range();
        boundaries.extend([range.start, range.end].map(|offset| Boundary { offset, level }));
    }
}

fn parse(text: &str, language: Language, progress: &Progress<'_>) -> Result<Option<Tree>, ChunkError> {
    let mut parser = Parser::new();
    // The parser rejects a grammar only if the build combines incompatible versions; a test covers every language.
    if parser.set_language(&language.grammar()).is_err() {
        return Ok(None);
    }
    let max_operations = MIN_OPERATIONS.max(text.len().saturating_mul(MAX_OPERATIONS_PER_BYTE));
    let mut callbacks = 0;
    let mut stopped = false;
    let mut on_progress = |_: &ParseState| {
        callbacks += 1;
        stopped = progress.step().is_err();
        if stopped || callbacks * OPERATIONS_PER_CALLBACK > max_operations {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let bytes = text.as_bytes();
    let options = ParseOptions::new().progress_callback(&mut on_progress);
    let tree =
        parser.parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options));
    if stopped { Err(ChunkError::Stopped) } else { Ok(tree) }
}
