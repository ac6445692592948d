//! Adds the documents of a request to a collection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use embeddery_chunk::ChunkConfig;
use embeddery_core::{EmbedError, InputType};
use embeddery_ingest::{
    MissingChunk, ModelReader, SplitTextError, WriteBatch, WriteTarget, model_selector, run_stoppable, split,
    to_chunks,
};
use embeddery_store::{CheckedDocument, Document, Metadata, ModelBinding, StoreError, UpsertResult};

use super::{CollectionService, embed::BoundCollection};
use crate::error::ApiError;

/// A document of a request.
#[derive(Clone, Debug)]
pub(crate) struct NewDocument {
    pub(crate) id: String,
    pub(crate) text: Arc<str>,
    pub(crate) metadata: Metadata,
}

/// The result of adding documents.
pub(crate) struct Added {
    pub(crate) written: UpsertResult,
    /// Chunks that the model did not read whole.
    pub(crate) truncated: u64,
    /// The id and the number of chunks of each document.
    pub(crate) documents: Vec<(String, usize)>,
}

impl CollectionService {
    /// Stores documents. Chunks that are stored already are not embedded again. `positions` has the index in the request of
    /// each document.
    pub(crate) async fn add(
        &self,
        collection: &str,
        documents: Vec<NewDocument>,
        positions: &[usize],
        config: ChunkConfig,
    ) -> Result<Added, ApiError> {
        let binding = self.store().get(self.collection_ref(collection)).await?.binding;
        let documents = self
            .split(&binding, documents, config)
            .await
            .map_err(|error| error.into_request_error(positions))?;
        let sizes = documents.iter().map(|document| (document.id.clone(), document.chunks.len())).collect();
        let (written, truncated) = self.write_named(collection, &binding, documents, positions).await?;
        Ok(Added { written, truncated, documents: sizes })
    }

    /// Embeds the chunks that have no vector, and stores the documents. Also returns the number of chunks that the model
    /// did not read whole.
    pub(crate) async fn write(
        &self,
        collection: &str,
        binding: &ModelBinding,
        documents: Vec<CheckedDocument>,
    ) -> Result<(UpsertResult, u64), ApiError> {
        self.write_named(collection, binding, documents, &[]).await
    }

    /// As [`CollectionService::write`]. `positions` has the index in the request of each document, for errors.
    async fn write_named(
        &self,
        collection: &str,
        binding: &ModelBinding,
        documents: Vec<CheckedDocument>,
        positions: &[usize],
    ) -> Result<(UpsertResult, u64), ApiError> {
        let ingest = self.app.ingest();
        let found = ingest.look_up(self.collection_ref(collection), &documents).await?;
        if found.binding.is_none() {
            return Err(StoreError::no_collection(collection).into());
        }
        let target = WriteTarget {
            user: self.user(),
            collection,
            space: &binding.space,
            max_quota_wait: self.time_left(),
            store_timeout: None,
        };
        let bound = BoundCollection { name: collection, binding };
        let (truncate, truncated) = (bound.document_truncation(), AtomicU64::new(0));
        let count = &truncated;
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        let ids = &ids;
        let embed = |missing: Vec<MissingChunk>| async move {
            let texts: Vec<Arc<str>> = missing.iter().map(|chunk| Arc::clone(&chunk.text)).collect();
            let to_error = |first, error| chunk_error(error, &missing[first..], ids, positions);
            let embedded = self.embed_texts(bound, &texts, InputType::Document, truncate, to_error).await?;
            count.fetch_add(embedded.truncated, Relaxed);
            Ok::<_, ApiError>(embedded.vectors)
        };
        let batch = WriteBatch { documents, stored: found.stored };
        let written = ingest.write(&target, batch, embed).await;
        ingest.recount_if_due(self.user()).await;
        Ok((written?, truncated.into_inner()))
    }

    /// Splits texts on a thread that may block, as the first stage of a job does. The thread stops when the request ends.
    pub(crate) async fn split(
        &self,
        binding: &ModelBinding,
        documents: Vec<NewDocument>,
        config: ChunkConfig,
    ) -> Result<Vec<CheckedDocument>, SplitError> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        let selector = model_selector(&binding.provider, &binding.model);
        self.metered.check_download(&self.app, selector)?;
        let deadline = self.deadline;
        let opening = async { ModelReader::open(&*self.app.router.open(selector).await?).await };
        let reader = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), opening)
                .await
                .unwrap_or_else(|_| Err(EmbedError::timeout("loading the model took too long"))),
            None => opening.await,
        }
        .map_err(ApiError::from)?;
        let is_late = move || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let split_all = move |stop: &dyn Fn() -> bool| {
            let split = |(index, document): (usize, NewDocument)| {
                let NewDocument { id, text, metadata } = document;
                let spans = match split(&text, config, &reader, stop) {
                    Ok(spans) => spans,
                    Err(SplitTextError::Stopped) => {
                        let error = EmbedError::timeout("splitting the documents took too long");
                        return Err(ApiError::from(error).into());
                    }
                    Err(SplitTextError::TooLong(reason)) => {
                        return Err(SplitError::TooLong { index, id, reason });
                    }
                };
                let chunks = to_chunks(&text, &spans).ok_or_else(ApiError::internal)?;
                let document = Document { id, metadata, chunks, submission: None };
                document.check().map_err(|error| ApiError::from(error).into())
            };
            documents.into_iter().enumerate().map(split).collect()
        };
        run_stoppable(is_late, split_all).await.unwrap_or_else(|_| Err(ApiError::internal().into()))
    }
}

/// The failure of a call whose inputs are `chunks`. The message names the documents by their id, and by their index in the
/// request if it is known.
fn chunk_error(error: EmbedError, chunks: &[MissingChunk], ids: &[String], positions: &[usize]) -> ApiError {
    let position = |chunk: &MissingChunk| positions.get(chunk.document).copied();
    let name = |input: usize| {
        let Some(chunk) = chunks.get(input) else { return "a chunk".to_owned() };
        let path = position(chunk).map_or_else(String::new, |index| format!("documents[{index}]: "));
        let id = ids.get(chunk.document).map_or("", String::as_str);
        format!("{path}document '{id}', chunk {}", chunk.chunk)
    };
    let first = error.inputs.first().and_then(|input| chunks.get(input.index));
    let param = first.and_then(position).map(|index| format!("documents[{index}].text"));
    ApiError::of_chunks(error, param, name)
}

/// Why documents are not split.
pub(crate) enum SplitError {
    /// A document must not be split, and the model does not read it whole.
    TooLong {
        /// Its place among the documents.
        index: usize,
        id: String,
        reason: String,
    },
    Other(ApiError),
}

impl From<ApiError> for SplitError {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl SplitError {
    /// The error of a request whose body has the documents.
    fn into_request_error(self, positions: &[usize]) -> ApiError {
        match self {
            Self::TooLong { index, id, reason } => {
                let index = positions.get(index).copied().unwrap_or(index);
                let message = format!(
                    "documents[{index}]: document '{id}' cannot be one chunk: {reason}; leave chunking.method out, or shorten the text"
                );
                ApiError::too_long(format!("documents[{index}].text"), message)
            }
            Self::Other(error) => error,
        }
    }

    /// The error of an import, whose lines are always split.
    pub(crate) fn into_import_error(self) -> ApiError {
        match self {
            Self::TooLong { id, reason, .. } => {
                ApiError::too_long("text", format!("document '{id}': {reason}"))
            }
            Self::Other(error) => error,
        }
    }
}
