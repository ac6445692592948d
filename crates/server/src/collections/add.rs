//! Adds the documents of a request to a collection.

use std::sync::Arc;

use embeddery_chunk::{ChunkConfig, Unit};
use embeddery_core::InputType;
use embeddery_ingest::{MissingChunk, WriteBatch, WriteTarget, model_selector, split, to_chunks};
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
    /// The id and the number of chunks of each document.
    pub(crate) documents: Vec<(String, usize)>,
}

impl CollectionService {
    /// Stores documents. Chunks that are stored already are not embedded again.
    pub(crate) async fn add(
        &self,
        collection: &str,
        documents: Vec<NewDocument>,
        config: ChunkConfig,
    ) -> Result<Added, ApiError> {
        let binding = self.store().get(self.collection_ref(collection)).await?.binding;
        let documents = self.split(&binding, documents, config).await?;
        let sizes = documents.iter().map(|document| (document.id.clone(), document.chunks.len())).collect();
        let written = self.write(collection, &binding, documents).await?;
        Ok(Added { written, documents: sizes })
    }

    /// Embeds the chunks that have no vector, and stores the documents.
    pub(crate) async fn write(
        &self,
        collection: &str,
        binding: &ModelBinding,
        documents: Vec<CheckedDocument>,
    ) -> Result<UpsertResult, ApiError> {
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
        let embed = |missing: Vec<MissingChunk>| async move {
            let texts: Vec<Arc<str>> = missing.into_iter().map(|chunk| chunk.text).collect();
            self.vectors(bound, &texts, InputType::Document).await
        };
        let batch = WriteBatch { documents, stored: found.stored };
        let written = ingest.write(&target, batch, embed).await;
        ingest.recount_if_due(self.user()).await;
        written
    }

    /// Splits texts on a thread that may block, as the first stage of a job does.
    pub(crate) async fn split(
        &self,
        binding: &ModelBinding,
        documents: Vec<NewDocument>,
        config: ChunkConfig,
    ) -> Result<Vec<CheckedDocument>, ApiError> {
        let model = match config.unit() {
            Unit::Tokens => {
                Some(self.app.router.open(model_selector(&binding.provider, &binding.model)).await?)
            }
            Unit::Characters | Unit::Words => None,
        };
        let split_all = move || {
            let split = |NewDocument { id, text, metadata }: NewDocument| {
                let chunks = to_chunks(&text, &split(&text, config, model.as_deref()))?;
                Some(Document { id, metadata, chunks, submission: None })
            };
            let check = |document: Document| document.check().map_err(ApiError::from);
            let checked = |document| split(document).ok_or_else(ApiError::internal).and_then(check);
            documents.into_iter().map(checked).collect::<Result<_, _>>()
        };
        tokio::task::spawn_blocking(split_all).await.map_err(|_| ApiError::internal())?
    }
}
