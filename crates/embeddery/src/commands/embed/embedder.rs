//! Texts to vectors through the gateway. A provider that is away is waited for; a text that no model takes is found
//! and fails alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::bail;
use embeddery_core::{
    Backoff, EmbedError, EmbedRequest, Embeddings, ErrorKind, Input, InputType, Priority, RequestContext,
    Retry,
};
use embeddery_gateway::{BatchBisector, ModelSelector, Router};

use super::input::Line;
use crate::cli;

/// The longest time that a provider is waited for without an answer in between.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The longest pause between two attempts that we choose ourselves.
const COOLDOWN: Duration = Duration::from_secs(30);

/// What came of a line.
pub(super) enum Row {
    Vector(Arc<Embeddings>, usize),
    Failed(String),
}

/// Who asks the gateway, always for the same.
pub(super) struct BatchEmbedder {
    router: Arc<Router>,
    model: Option<String>,
    /// Everything about a request but its texts.
    request: EmbedRequest,
    /// The space of all vectors of this file, once it is known.
    space: Mutex<Option<String>>,
}

impl BatchEmbedder {
    pub(super) fn new(router: Arc<Router>, options: &cli::Embed, space: Option<String>) -> Self {
        let context = RequestContext { priority: Priority::Batch, ..RequestContext::new("1", "embed") };
        let request = EmbedRequest {
            dimensions: options.dimensions,
            input_type: options.input_type.map(InputType::from),
            partial: true,
            ..EmbedRequest::with_defaults([], context)
        };
        Self { router, model: options.model.clone(), request, space: Mutex::new(space) }
    }

    /// What comes of each line, in their order. An error is one that no other line would fare better with.
    pub(super) async fn rows(&self, lines: &[Line]) -> anyhow::Result<Vec<Row>> {
        let mut rows: Vec<Option<Row>> = lines.iter().map(|_| None).collect();
        let mut texts = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match &line.text {
                Ok(text) => texts.push((index, Arc::clone(text))),
                Err(why) => rows[index] = Some(Row::Failed(why.clone())),
            }
        }
        let mut waiting = BatchBisector::new(vec![texts]);
        while let Some(part) = waiting.next_batch() {
            match self.embed_with_retry(&part).await {
                Ok(answer) => {
                    self.one_space(&answer)?;
                    let answer = Arc::new(answer);
                    for (row, (index, _)) in part.iter().enumerate() {
                        rows[*index] = Some(Row::Vector(Arc::clone(&answer), row));
                    }
                    for (row, error) in &answer.failed {
                        rows[part[*row].0] = Some(Row::Failed(error.message.clone()));
                    }
                }
                Err(error) if !of_texts(&error) => return Err(error.into()),
                Err(error) => {
                    for (_, (index, _)) in waiting.split_failed(part, &error) {
                        rows[index] = Some(Row::Failed(error.message.clone()));
                    }
                }
            }
        }
        Ok(rows.into_iter().map(|row| row.unwrap_or_else(|| Row::Failed("nobody answered".into()))).collect())
    }

    /// Asks until there is an answer, or an error that waiting does not mend.
    async fn embed_with_retry(&self, part: &[(usize, Arc<str>)]) -> Result<Embeddings, EmbedError> {
        let inputs: Vec<Input> = part.iter().map(|(_, text)| Input::Text(Arc::clone(text))).collect();
        let request = EmbedRequest { inputs: inputs.into(), ..self.request.clone() };
        let selector = ModelSelector { model: self.model.as_deref(), provider: None };
        let (mut waited, mut attempt) = (Duration::ZERO, 0);
        let backoff = Backoff::new(Duration::from_secs(1), COOLDOWN);
        loop {
            let error = match self.router.embed(selector, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = match error.retry {
                Retry::Never => return Err(error),
                Retry::Backoff => backoff.ceiling(attempt),
                Retry::After(wait) => wait.max(Duration::from_millis(100)),
            };
            waited += wait;
            if waited > TIMEOUT {
                return Err(error);
            }
            tracing::warn!(%error, "no answer; asking again in {wait:.1?}");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// A file must not mix vectors that cannot be compared: not by a fallback, not over a resumption.
    fn one_space(&self, answer: &Embeddings) -> anyhow::Result<()> {
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let space = space.get_or_insert_with(|| answer.space.to_string());
        if *space != answer.space.as_str() {
            bail!(
                "{} answered with vectors of the space {}, but the file's are of {space}; make the first model \
                 answer again and run the same command, or start over with --overwrite",
                answer.served_by.name,
                answer.space
            );
        }
        Ok(())
    }
}

/// Whether a refused call is about what it carried, so that its other texts may do well.
fn of_texts(error: &EmbedError) -> bool {
    matches!(error.kind, ErrorKind::InputTooLong | ErrorKind::BatchTooLarge)
        || (error.kind == ErrorKind::InvalidRequest && !error.inputs.is_empty())
        || (error.kind == ErrorKind::InvalidRequest && error.fault == embeddery_core::Fault::Caller)
}
