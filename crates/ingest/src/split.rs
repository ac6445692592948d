//! Text to chunks.

use std::ops::Range;

use embeddery_chunk::ChunkConfig;
use embeddery_core::{Embedder, TokenCount};
use embeddery_store::{DocumentChunk, TextSpan};

/// The position of a chunk in its document.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkSpan {
    /// In bytes.
    pub bytes: Range<u64>,
    /// In characters.
    pub characters: Range<u64>,
    /// The headings above the chunk, outermost first.
    pub headings: Vec<String>,
}

/// Splits a text. `model` counts tokens where `config` measures in tokens, and its limit bounds the size of a chunk.
///
/// A long text takes seconds: call this on a thread that may block.
pub fn split(text: &str, config: ChunkConfig, model: Option<&dyn Embedder>) -> Vec<ChunkSpan> {
    let count = |piece: &str| match model.map(|model| model.count_tokens(piece)) {
        Some(TokenCount::Exact(tokens) | TokenCount::Estimate(tokens)) => tokens,
        None => 0,
    };
    let special_tokens = count("");
    let max_tokens = model.and_then(|model| model.model().max_tokens);
    let config =
        max_tokens.map_or(config, |max| config.clamp_to_model(max.get().saturating_sub(special_tokens)));
    embeddery_chunk::chunk(text, &config, &count)
        .into_iter()
        .map(|chunk| ChunkSpan {
            bytes: chunk.bytes.start as u64..chunk.bytes.end as u64,
            characters: chunk.characters.start as u64..chunk.characters.end as u64,
            headings: chunk.headings,
        })
        .collect()
}

/// The chunks of a text in the store's form, without vectors. `None` when a span does not lie in the text.
pub fn to_chunks(text: &str, spans: &[ChunkSpan]) -> Option<Vec<DocumentChunk>> {
    let to_chunk = |span: &ChunkSpan| {
        let ChunkSpan { bytes, characters, headings } = span;
        let range = usize::try_from(bytes.start).ok()?..usize::try_from(bytes.end).ok()?;
        Some(DocumentChunk {
            text: text.get(range)?.to_owned(),
            span: TextSpan {
                bytes: (bytes.start, bytes.end),
                characters: (characters.start, characters.end),
            },
            headings: headings.clone(),
            vector: None,
        })
    };
    spans.iter().map(to_chunk).collect()
}
