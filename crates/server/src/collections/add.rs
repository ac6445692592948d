//! Documents in: cut, embedded where no vector is stored, written in one step.

use std::sync::Arc;

use embeddery_chunk::{ChunkConfig, Unit};
use embeddery_core::InputType;
use embeddery_pipeline::stages::{self, parts};
use embeddery_store::{Document, DocumentChunk, ModelBinding, StoreErrorKind, UpsertResult};
use serde_json::{Map, Value};

use super::{CollectionService, selector};
use crate::error::ApiError;

/// A document as a request sends it.
#[derive(Clone, Debug)]
pub(crate) struct NewDocument {
    pub(crate) id: String,
    pub(crate) text: Arc<str>,
    pub(crate) metadata: Map<String, Value>,
}

/// What became of documents.
pub(crate) struct Added {
    pub(crate) written: UpsertResult,
    /// Each document's id and how many chunks it has.
    pub(crate) documents: Vec<(String, usize)>,
}

impl CollectionService {
    /// Stores documents; what of them is stored already is not embedded again.
    pub(crate) async fn add(
        &self,
        collection: &str,
        documents: Vec<NewDocument>,
        rule: ChunkConfig,
    ) -> Result<Added, ApiError> {
        let binding = self.store().get(self.collection_ref(collection)).await?.binding;
        let cut = self.cut(&binding, documents, rule).await?;
        let sizes = cut.iter().map(|document| (document.id.clone(), document.chunks.len())).collect();
        let written = self.write(collection, &binding, cut).await?;
        Ok(Added { written, documents: sizes })
    }

    /// Embeds chunks that have no vector, and stores the documents.
    pub(crate) async fn write(
        &self,
        collection: &str,
        binding: &ModelBinding,
        documents: Vec<Document>,
    ) -> Result<UpsertResult, ApiError> {
        let place = self.collection_ref(collection);
        let stored = self.store().existing_chunks(place, &documents).await?;
        self.take_room(stored.iter().flatten().filter(|stored| !**stored).count()).await?;
        let written = self.embed_and_store((collection, binding), documents, &stored).await;
        self.recount().await;
        written
    }

    async fn embed_and_store(
        &self,
        (collection, binding): (&str, &ModelBinding),
        documents: Vec<Document>,
        stored: &[Vec<bool>],
    ) -> Result<UpsertResult, ApiError> {
        let place = self.collection_ref(collection);
        let first = self.embed_missing((collection, binding), documents.clone(), |d, c| stored[d][c]).await?;
        match self.store().upsert(place, Some(binding.space.clone()), first).await {
            // Somebody removed a chunk between the look and the write; the second time nothing is taken as stored.
            Err(error) if error.kind == StoreErrorKind::VectorMissing => {
                let all = self.embed_missing((collection, binding), documents, |_, _| false).await?;
                Ok(self.store().upsert(place, Some(binding.space.clone()), all).await?)
            }
            written => Ok(written?),
        }
    }

    async fn embed_missing(
        &self,
        bound: (&str, &ModelBinding),
        mut documents: Vec<Document>,
        stored: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<Document>, ApiError> {
        let mut missing: Vec<&mut DocumentChunk> = Vec::new();
        for (d, document) in documents.iter_mut().enumerate() {
            for (c, chunk) in document.chunks.iter_mut().enumerate() {
                if chunk.vector.is_none() && !stored(d, c) {
                    missing.push(chunk);
                }
            }
        }
        let texts: Vec<Arc<str>> = missing.iter().map(|chunk| chunk.text.as_str().into()).collect();
        let vectors = self.vectors(bound, &texts, InputType::Document).await?;
        for (chunk, vector) in missing.into_iter().zip(vectors) {
            chunk.vector = Some(vector);
        }
        Ok(documents)
    }

    /// Cuts texts on a thread that may take its time, as a job's first stage does.
    pub(crate) async fn cut(
        &self,
        binding: &ModelBinding,
        documents: Vec<NewDocument>,
        rule: ChunkConfig,
    ) -> Result<Vec<Document>, ApiError> {
        let model = match rule.unit() {
            Unit::Tokens => Some(self.app.router.open(selector(binding)).await?),
            Unit::Characters | Unit::Words => None,
        };
        let cut = move || {
            let cut = |NewDocument { id, text, metadata }: NewDocument| {
                let chunks = parts(&text, &stages::cut(&text, rule, model.as_deref()))?;
                Some(Document { id, metadata, chunks, submission: None })
            };
            documents.into_iter().map(cut).collect::<Option<_>>()
        };
        let documents = tokio::task::spawn_blocking(cut).await.ok().flatten();
        documents.ok_or_else(ApiError::internal)
    }
}
