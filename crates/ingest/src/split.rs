//! Text to chunks.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use embeddery_chunk::{ChunkConfig, ChunkError, Method, Tokens};
use embeddery_core::{
    ESTIMATE_MARGIN, EmbedError, Embedder, EstimatedTokens, ProviderKind, TokenCounter, Truncate,
};
use embeddery_store::{DocumentChunk, TextSpan};
use tokio::task::JoinError;

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

/// How a model reads documents: how it counts tokens, and how many it reads.
#[derive(Clone)]
pub struct ModelReader {
    counter: Arc<dyn TokenCounter>,
    /// Maximum tokens of a document, without those that the model adds.
    max_tokens: Option<usize>,
    /// Whether the provider refuses a text that the model does not read whole.
    refuses_long_texts: bool,
}

impl ModelReader {
    /// Reads the limits of a model. A local model is loaded first.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub async fn open(model: &dyn Embedder) -> Result<Self, EmbedError> {
        let counter = model.token_counter().await?;
        let info = model.model();
        let max_tokens = info.max_tokens.map(|max| max.get().saturating_sub(counter.added_tokens()).max(1));
        Ok(Self { counter, max_tokens, refuses_long_texts: document_truncation(info.provider).is_some() })
    }

    /// A model of which nothing is known. Tokens are estimated.
    pub fn unknown() -> Self {
        Self { counter: Arc::new(EstimatedTokens::default()), max_tokens: None, refuses_long_texts: false }
    }

    /// The maximum tokens of a chunk, as the counter counts. An estimate differs from the real number by up to
    /// [`ESTIMATE_MARGIN`]. A chunk must fit for certain. A text that stays whole is refused only if it certainly does not
    /// fit, where the provider refuses what does not fit after all.
    fn max_chunk_tokens(&self, config: &ChunkConfig) -> Option<usize> {
        let max = self.max_tokens?;
        Some(if self.counter.is_exact() {
            max
        } else if config.method() == Method::Whole && self.refuses_long_texts {
            max.saturating_mul(ESTIMATE_MARGIN)
        } else {
            (max / ESTIMATE_MARGIN).max(1)
        })
    }

    fn too_long(&self, tokens: usize) -> SplitTextError {
        let limit = match self.max_tokens {
            Some(max) => format!("the model reads at most {max}"),
            None => "the model reads less".into(),
        };
        SplitTextError::TooLong(if self.counter.is_exact() {
            format!("the text has {tokens} tokens, but {limit}")
        } else if self.refuses_long_texts {
            format!("the text has about {tokens} tokens, but {limit}")
        } else {
            format!(
                "the text has about {tokens} tokens, and {limit}; its provider may cut a text without an error, so the \
                 estimate must be at most 1/{ESTIMATE_MARGIN} of that"
            )
        })
    }
}

/// Why a text has no chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitTextError {
    /// The chunks are not needed any more.
    #[error("the split was stopped")]
    Stopped,
    /// The text must not be split, and the model does not read it whole. The reason is given.
    #[error("{0}")]
    TooLong(String),
}

/// The truncation of documents: none, with a provider that refuses a text which its model does not read whole. The others
/// truncate without reporting it, or have no such parameter.
pub fn document_truncation(provider: ProviderKind) -> Option<Truncate> {
    match provider {
        ProviderKind::HuggingFace
        | ProviderKind::Onnx
        | ProviderKind::OpenAi
        | ProviderKind::Cohere
        | ProviderKind::Mistral
        | ProviderKind::Voyage => Some(Truncate::None),
        ProviderKind::Google | ProviderKind::LocalApi => None,
    }
}

/// Splits a text. `reader` counts tokens, and no chunk exceeds what its model reads. `stop` is asked again and again
/// whether the chunks are still needed.
///
/// A long text takes seconds: call this on a thread that may block, for example by [`run_stoppable`].
///
/// # Errors
/// `stop` returns true, or `config` leaves the text whole and the model does not read it whole.
pub fn split(
    text: &str,
    config: ChunkConfig,
    reader: &ModelReader,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<ChunkSpan>, SplitTextError> {
    let count = |piece: &str| reader.counter.count(piece);
    let tokens = Tokens { count: &count, max: reader.max_chunk_tokens(&config) };
    let to_span = |chunk: embeddery_chunk::TextChunk<'_>| ChunkSpan {
        bytes: chunk.bytes.start as u64..chunk.bytes.end as u64,
        characters: chunk.characters.start as u64..chunk.characters.end as u64,
        headings: chunk.headings,
    };
    match embeddery_chunk::chunk(text, &config, tokens, stop) {
        Ok(chunks) => Ok(chunks.into_iter().map(to_span).collect()),
        Err(ChunkError::Stopped) => Err(SplitTextError::Stopped),
        Err(ChunkError::TooLong { tokens, .. }) => Err(reader.too_long(tokens)),
    }
}

/// Runs `work` on a thread that may block. The function that it receives returns true once the result is not needed: the
/// future was dropped, or `is_unneeded` returns true.
///
/// # Errors
/// `work` panicked.
pub async fn run_stoppable<T: Send + 'static>(
    is_unneeded: impl Fn() -> bool + Send + 'static,
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let guard = StopOnDrop(Arc::default());
    let dropped = Arc::clone(&guard.0);
    let stop = move || dropped.load(Relaxed) || is_unneeded();
    tokio::task::spawn_blocking(move || work(&stop)).await
}

/// Becomes true when it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_stops_when_its_future_is_dropped_or_the_result_is_not_needed() {
        let (stopped, result) = tokio::sync::oneshot::channel();
        let endless = |stop: &dyn Fn() -> bool| {
            while !stop() {
                std::thread::yield_now();
            }
            let _ = stopped.send(());
        };
        let work = run_stoppable(|| false, endless);
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        result.await.unwrap();

        let stopped = run_stoppable(|| true, |stop| stop()).await.unwrap();
        assert!(stopped);
    }
}
