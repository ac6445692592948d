//! Collections as callers write and read them.

pub(crate) mod archive;
pub(crate) mod documents;
pub(crate) mod search;

use std::num::NonZeroUsize;

use embeddery_core::ProviderKind;
use embeddery_store::{Backup, Collection, DeletionReceipt, ModelBinding, Stats, check_name};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fields::Fields;
use crate::{collections::Model, error::ApiError};

/// Bytes of one object of metadata, as JSON.
const METADATA_LIMIT: usize = 64 << 10;

/// Metadata that are small enough to be kept beside every search.
pub(crate) fn metadata(fields: &mut Fields) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(None) };
    let bytes = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
    if bytes > METADATA_LIMIT {
        let message = format!(
            "metadata has {bytes} bytes, {METADATA_LIMIT} are allowed; keep what is long in the text, or elsewhere"
        );
        return Err(ApiError::invalid("metadata", message));
    }
    Ok(Some(metadata))
}

/// A collection to be made.
#[derive(ToSchema)]
pub(crate) struct CreateRequest {
    /// Letters, digits, `_`, `.`, `-`; up to 128; no leading dot.
    #[schema(example = "notes-2026")]
    pub(crate) name: String,
    /// Anything, up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Map<String, Value>,
    /// Which model makes the vectors, as a request for embeddings names it. Without it the default model.
    #[schema(value_type = Option<String>)]
    pub(crate) embedding_model: Model,
    /// Who serves the model, where its name does not say.
    #[expect(dead_code, reason = "the documentation's picture; read as part of the model")]
    pub(crate) provider: Option<String>,
    /// The wanted length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    #[expect(dead_code, reason = "the documentation's picture; read as part of the model")]
    pub(crate) dimensions: Option<NonZeroUsize>,
}

impl CreateRequest {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let name = fields.text("name")?;
        let metadata = metadata(&mut fields)?.unwrap_or_default();
        let embedding_model = model(&mut fields, "embedding_model")?;
        let Some(name) = name else {
            return Err(fields.unfit(Some("name".into()), "name is missing; name the collection".into()));
        };
        fields.finish()?;
        check_name(&name)?;
        Ok(Self { name, metadata, embedding_model, provider: None, dimensions: None })
    }
}

/// Another model for a collection.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct ReembedRequest {
    /// The model to move to.
    #[schema(example = "BAAI/bge-small-en-v1.5")]
    embedding_model: String,
    /// Who serves it, where its name does not say.
    provider: Option<String>,
    /// The wanted length of a vector.
    #[schema(value_type = Option<u32>, minimum = 1)]
    dimensions: Option<NonZeroUsize>,
}

impl ReembedRequest {
    pub(crate) fn read(mut fields: Fields) -> Result<Model, ApiError> {
        let model = model(&mut fields, "embedding_model")?;
        if model.name.is_none() && model.dimensions.is_none() {
            let message = "embedding_model is missing; name the model to move to";
            return Err(fields.unfit(Some("embedding_model".into()), message.into()));
        }
        fields.finish()?;
        Ok(model)
    }
}

/// A model as a body names it.
pub(crate) fn model(fields: &mut Fields, field: &'static str) -> Result<Model, ApiError> {
    let name = fields.text(field)?;
    let provider = match fields.text("provider")? {
        None => None,
        Some(name) => {
            Some(name.parse::<ProviderKind>().map_err(|error| ApiError::invalid("provider", error))?)
        }
    };
    let dimensions = fields.bounded("dimensions", 1..=16_384)?.and_then(NonZeroUsize::new);
    Ok(Model { name, provider, dimensions })
}

/// A collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionView {
    name: String,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    #[serde(flatten)]
    model: ModelView,
}

/// Which model makes a collection's vectors.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelView {
    embedding_model: String,
    provider: String,
    embedding_dimension: usize,
    /// Vectors of equal spaces may be compared; others are refused.
    space: String,
}

impl From<ModelBinding> for ModelView {
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
pub(crate) struct StatsView {
    #[serde(flatten)]
    collection: CollectionView,
    /// Vectors that are searched.
    count: u64,
    documents: u64,
    /// The move to another model, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reembed: Option<MoveView>,
}

/// A move to another model.
#[derive(Serialize, ToSchema)]
pub(crate) struct MoveView {
    #[serde(flatten)]
    model: ModelView,
    /// Vectors that have been made, of `count`.
    done: u64,
}

impl From<Stats> for StatsView {
    fn from(mut stats: Stats) -> Self {
        let migration = stats.collection.migration.take();
        Self {
            reembed: migration.map(|move_| MoveView { model: move_.binding.into(), done: stats.migrated }),
            collection: stats.collection.into(),
            count: stats.counts.vectors,
            documents: stats.counts.documents,
        }
    }
}

/// A move has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReembedAnswer {
    /// `running`
    status: &'static str,
    collection: String,
    from: ModelView,
    to: ModelView,
}

impl ReembedAnswer {
    pub(crate) fn new(collection: String, (from, to): (ModelBinding, ModelBinding)) -> Self {
        Self { status: "running", collection, from: from.into(), to: to.into() }
    }
}

/// A copy of all collections of the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct BackupView {
    /// The file in the directory `backups` of the user's directory.
    file: String,
    bytes: u64,
}

impl From<Backup> for BackupView {
    fn from(backup: Backup) -> Self {
        Self { file: backup.name, bytes: backup.bytes }
    }
}

/// What is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReceiptView {
    user: String,
    collections: u64,
    documents: u64,
    vectors: u64,
    jobs: u64,
    /// `deleted`, or, where tokens of a day are limited, `deleted_but_today`.
    usage: &'static str,
    cache: CacheGone,
    /// When, in RFC 3339.
    deleted_at: String,
}

/// What became of vectors in the cache.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheGone {
    /// There is no cache.
    Off,
    /// They are gone.
    Cleared,
    /// They are kept by a hash that nobody can turn back, until their time is over.
    Expires,
}

/// What was deleted.
pub(crate) struct Gone {
    pub(crate) collections: DeletionReceipt,
    pub(crate) jobs: u64,
    pub(crate) cache: CacheGone,
    /// What was used today is still counted.
    pub(crate) today_stays: bool,
}

impl ReceiptView {
    pub(crate) fn new(user: &str, gone: &Gone) -> Self {
        let DeletionReceipt { collections, documents, vectors } = gone.collections;
        Self {
            user: user.to_owned(),
            collections,
            documents,
            vectors,
            jobs: gone.jobs,
            usage: if gone.today_stays { "deleted_but_today" } else { "deleted" },
            cache: gone.cache,
            deleted_at: jiff::Timestamp::now().to_string(),
        }
    }
}
