//! Collections in requests and responses.

pub(crate) mod documents;
pub(crate) mod export_import;
pub(crate) mod search;

use std::num::NonZeroUsize;

use embeddery_store::{Backup, Collection, DeletionReceipt, Metadata, ModelBinding, Stats, check_name};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    exact_json::ExactObject,
    field::{Bounds, whole_number},
    models::parse_provider,
};
use crate::{
    collections::Model,
    error::{ApiError, ErrorStyle},
};

/// Bounds of `dimensions`.
pub(crate) const DIMENSIONS: Bounds = Bounds { min: 1, max: MAX_DIMENSIONS };
pub(crate) const MAX_DIMENSIONS: usize = 16_384;

/// Checks metadata, in which every number is exact.
pub(crate) fn check_metadata(metadata: Option<ExactObject>) -> Result<Option<Metadata>, ApiError> {
    let Some(metadata) = metadata else { return Ok(None) };
    let metadata = metadata.check("metadata")?;
    embeddery_store::check_metadata(&metadata)?;
    Ok(Some(metadata))
}

/// A collection to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateCollectionRequest {
    /// Letters, digits, `_`, `.`, `-`; up to 128; no leading dot.
    #[schema(example = "notes-2026")]
    name: String,
    /// Any object, up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<ExactObject>,
    /// Which model makes the vectors, named as in a request for embeddings. Without it the default model.
    embedding_model: Option<String>,
    /// The model's provider, where its name does not determine it.
    provider: Option<String>,
    /// The requested length of a vector.
    #[serde(default, deserialize_with = "whole_number::<1, MAX_DIMENSIONS, _>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 16384)]
    dimensions: Option<usize>,
}

impl CreateCollectionRequest {
    /// Checks what can be checked without a model. Returns the name, the metadata and the model.
    pub(crate) fn check(self) -> Result<(String, Metadata, Model), ApiError> {
        let metadata = check_metadata(self.metadata)?.unwrap_or_default();
        let model = model(self.embedding_model, self.provider.as_deref(), self.dimensions)?;
        check_name(&self.name)?;
        Ok((self.name, metadata, model))
    }
}

/// Another model for a collection.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReembedRequest {
    /// The model to move to.
    #[schema(required, value_type = String, example = "BAAI/bge-small-en-v1.5")]
    embedding_model: Option<String>,
    /// The model's provider, where its name does not determine it.
    provider: Option<String>,
    /// The requested length of a vector.
    #[serde(default, deserialize_with = "whole_number::<1, MAX_DIMENSIONS, _>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 16384)]
    dimensions: Option<usize>,
}

impl ReembedRequest {
    pub(crate) fn check(self) -> Result<Model, ApiError> {
        let model = model(self.embedding_model, self.provider.as_deref(), self.dimensions)?;
        if model.name.is_none() && model.dimensions.is_none() {
            let message = "embedding_model is missing; send the model to move to";
            return Err(ApiError::schema(ErrorStyle::Native, Some("embedding_model".into()), message));
        }
        Ok(model)
    }
}

/// A model as a body names it.
pub(crate) fn model(
    name: Option<String>,
    provider: Option<&str>,
    dimensions: Option<usize>,
) -> Result<Model, ApiError> {
    Ok(Model {
        name,
        provider: parse_provider(provider)?,
        dimensions: dimensions.and_then(NonZeroUsize::new),
    })
}

/// A collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionView {
    name: String,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    #[serde(flatten)]
    model: CollectionModel,
}

/// The model that makes a collection's vectors.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionModel {
    embedding_model: String,
    provider: String,
    embedding_dimension: usize,
    /// Vectors of equal spaces may be compared; others are refused.
    space: String,
}

impl From<ModelBinding> for CollectionModel {
    fn from(binding: ModelBinding) -> Self {
        Self {
            embedding_model: binding.model,
            provider: binding.provider,
            embedding_dimension: binding.dim,
            space: binding.space.as_str().to_owned(),
        }
    }
}

impl From<Collection> for CollectionView {
    fn from(collection: Collection) -> Self {
        Self { name: collection.name, metadata: collection.metadata, model: collection.binding.into() }
    }
}

/// A collection and how much it holds.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionStats {
    #[serde(flatten)]
    collection: CollectionView,
    /// Vectors that are searched.
    count: u64,
    documents: u64,
    /// The move to another model, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reembed: Option<ReembedProgress>,
}

/// A move of a collection to another model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReembedProgress {
    #[serde(flatten)]
    model: CollectionModel,
    /// Vectors that have been made, of `count`.
    done: u64,
}

impl From<Stats> for CollectionStats {
    fn from(mut stats: Stats) -> Self {
        let migration = stats.collection.migration.take();
        Self {
            reembed: migration
                .map(|migration| ReembedProgress { model: migration.binding.into(), done: stats.migrated }),
            collection: stats.collection.into(),
            count: stats.counts.vectors,
            documents: stats.counts.documents,
        }
    }
}

/// A move has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReembedResponse {
    /// `running`
    status: &'static str,
    collection: String,
    from: CollectionModel,
    to: CollectionModel,
}

impl ReembedResponse {
    pub(crate) fn new(collection: String, from: ModelBinding, to: ModelBinding) -> Self {
        Self { status: "running", collection, from: from.into(), to: to.into() }
    }
}

/// A copy of all collections of the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct BackupResponse {
    /// The file in the directory `backups` of the user's directory.
    file: String,
    bytes: u64,
}

impl From<Backup> for BackupResponse {
    fn from(backup: Backup) -> Self {
        Self { file: backup.name, bytes: backup.bytes }
    }
}

/// The response to the deletion of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserDeletionReceipt {
    user: String,
    collections: u64,
    documents: u64,
    vectors: u64,
    jobs: u64,
    /// `deleted`, or, where tokens of a day are limited, `deleted_but_today`.
    usage: &'static str,
    cache: CacheDeletion,
    /// RFC 3339.
    deleted_at: String,
}

/// What happened to the vectors in the cache.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheDeletion {
    /// There is no cache.
    Off,
    /// They are deleted.
    Cleared,
    /// They are kept under a one-way hash until their time to live ends.
    Expires,
}

/// What was deleted.
pub(crate) struct DeletionSummary {
    pub(crate) collections: DeletionReceipt,
    pub(crate) jobs: u64,
    pub(crate) cache: CacheDeletion,
    /// Today's usage is still counted.
    pub(crate) keeps_todays_usage: bool,
}

impl UserDeletionReceipt {
    pub(crate) fn new(user: &str, summary: &DeletionSummary) -> Self {
        let DeletionReceipt { collections, documents, vectors } = summary.collections;
        Self {
            user: user.to_owned(),
            collections,
            documents,
            vectors,
            jobs: summary.jobs,
            usage: if summary.keeps_todays_usage { "deleted_but_today" } else { "deleted" },
            cache: summary.cache,
            deleted_at: jiff::Timestamp::now().to_string(),
        }
    }
}
