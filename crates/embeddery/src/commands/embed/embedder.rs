//! Embeds batches of lines through the gateway. It retries while a provider is unavailable, and bisects a refused batch so
//! that only the texts that cause the refusal fail.

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

/// Maximum total backoff of one request.
const RETRY_TIMEOUT: Duration = Duration::from_secs(600);
/// Maximum backoff between two attempts, unless the provider asks for a longer one.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The result of a line.
pub(super) enum Row {
    /// A row of a response.
    Vector(Arc<Embeddings>, usize),
    /// The error message.
    Failed(String),
}

/// Embeds batches with the same model and parameters.
pub(super) struct BatchEmbedder {
    router: Arc<Router>,
    model: Option<String>,
    /// The request without its inputs.
    template: EmbedRequest,
    /// The space of all vectors of the output, once it is known.
    space: Mutex<Option<String>>,
}

impl BatchEmbedder {
    pub(super) fn new(router: Arc<Router>, options: &cli::Embed, space: Option<String>) -> Self {
        let context = RequestContext { priority: Priority::Batch, ..RequestContext::new("1", "embed") };
        let template = EmbedRequest {
            dimensions: options.dimensions,
            input_type: options.input_type.map(InputType::from),
            partial: true,
            ..EmbedRequest::with_defaults([], context)
        };
        Self { router, model: options.model.clone(), template, space: Mutex::new(space) }
    }

    /// The result of each line, in order.
    ///
    /// # Errors
    /// If the cause of the failure is not in the texts, so that other lines would fail, too.
    pub(super) async fn embed_lines(&self, lines: &[Line]) -> anyhow::Result<Vec<Row>> {
        let mut rows: Vec<Option<Row>> = lines.iter().map(|_| None).collect();
        let mut texts = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match &line.text {
                Ok(text) => texts.push((index, Arc::clone(text))),
                Err(reason) => rows[index] = Some(Row::Failed(reason.clone())),
            }
        }
        let mut batches = BatchBisector::new(vec![texts]);
        while let Some(batch) = batches.next_batch() {
            match self.embed_with_retry(&batch).await {
                Ok(response) => {
                    self.check_space(&response)?;
                    let response = Arc::new(response);
                    for (row, (index, _)) in batch.iter().enumerate() {
                        rows[*index] = Some(Row::Vector(Arc::clone(&response), row));
                    }
                    for (row, error) in &response.failed {
                        rows[batch[*row].0] = Some(Row::Failed(error.message.clone()));
                    }
                }
                Err(error) if !is_caused_by_texts(&error) => return Err(error.into()),
                Err(error) => {
                    for (_, (index, _)) in batches.split_failed(batch, &error) {
                        rows[index] = Some(Row::Failed(error.message.clone()));
                    }
                }
            }
        }
        Ok(rows.into_iter().map(|row| row.unwrap_or_else(|| Row::Failed("no response".into()))).collect())
    }

    /// Embeds a batch, and retries errors that may be temporary.
    async fn embed_with_retry(&self, batch: &[(usize, Arc<str>)]) -> Result<Embeddings, EmbedError> {
        let inputs: Vec<Input> = batch.iter().map(|(_, text)| Input::Text(Arc::clone(text))).collect();
        let request = EmbedRequest { inputs: inputs.into(), ..self.template.clone() };
        let selector = ModelSelector { model: self.model.as_deref(), provider: None };
        let (mut waited, mut attempt) = (Duration::ZERO, 0);
        let backoff = Backoff::new(Duration::from_secs(1), MAX_BACKOFF);
        loop {
            let error = match self.router.embed(selector, request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let wait = match error.retry {
                Retry::Never => return Err(error),
                Retry::Backoff => backoff.ceiling(attempt),
                Retry::After(wait) => wait.max(Duration::from_millis(100)),
            };
            waited += wait;
            if waited > RETRY_TIMEOUT {
                return Err(error);
            }
            tracing::warn!(%error, wait_ms = wait.as_millis(), "request failed; retrying");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Checks that all vectors of the output are in one space, also after a fallback or a resumed run.
    fn check_space(&self, response: &Embeddings) -> anyhow::Result<()> {
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let space = space.get_or_insert_with(|| response.space.to_string());
        if *space != response.space.as_str() {
            bail!(
                "{} returned vectors of the space {}, but the output has vectors of {space}; make the first model \
                 available and run the same command again, or start over with --overwrite",
                response.served_by.name,
                response.space
            );
        }
        Ok(())
    }
}

/// Whether some texts of a refused request may be the cause, so that its other texts may succeed.
fn is_caused_by_texts(error: &EmbedError) -> bool {
    matches!(error.kind, ErrorKind::InputTooLong | ErrorKind::BatchTooLarge)
        || (error.kind == ErrorKind::InvalidRequest && !error.inputs.is_empty())
        || (error.kind == ErrorKind::InvalidRequest && error.fault == embeddery_core::Fault::Caller)
}
